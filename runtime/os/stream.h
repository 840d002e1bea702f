// Streams: reading and writing descriptors (pipes, stream sockets) that others may poll, share and pass on.
//
// A wait for input spins first, bounded and adapted to how long input took before on that descriptor, then sleeps in
// poll(2).  A spinning reader costs its writer no wake-up.
//
// Signals: one that comes in a sleep ends it (EINTR); one that comes before it, or in the spin, is asked for after at most
// 50 ms, since the first sleep is no longer than that and the next ones double up to 4 s.
//
// Nothing is read ahead of what was asked for.  Non-blocking descriptors (others may have made them so) are waited for
// only in the middle of a transfer.  Thread-safe as the descriptor is: bytes of two concurrent writers may mix.

#ifndef PYHOST_RUNTIME_OS_STREAM_H_
#define PYHOST_RUNTIME_OS_STREAM_H_

#include <sys/types.h>

#include <cstddef>
#include <span>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/wait.h"

namespace pyhost {

// Waits until `fd` has something to read, an end of file and errors included.  DeadlineExceeded, the interruptible's own
// error, or that of poll.
absl::Status WaitForInput(int fd, Wait wait);

// Spins for as long as that is worth it for input of `fd`, until there is some, or `elsewhere`, which is cheap to ask.
// False: in vain.
bool SpinForInput(int fd, Deadline deadline, absl::FunctionRef<bool()> elsewhere);

class StreamReader {
 public:
  StreamReader(int fd, Wait wait) : fd_(fd), wait_(wait) {}
  // Its caller has spun already: the next wait is a sleep.
  void SkipSpin() { spun_ = true; }

  // Fills `to`.  OutOfRange: the end of file before its first byte; `received()` tells how many came before an error.
  // The error of a non-blocking descriptor that has nothing (EAGAIN) is returned only while nothing has come.
  absl::Status Fill(std::span<std::byte> to);
  // The same if something is there now; false, and nothing read, otherwise.
  absl::StatusOr<bool> FillIfThere(std::span<std::byte> to);
  size_t received() const { return received_; }  // since the beginning

 private:
  ssize_t ReadNow(std::span<std::byte> to);     // like read(2), but EAGAIN where that would block
  ssize_t SpinToRead(std::span<std::byte> to);  // of a socket: tries for a while
  absl::Status AfterNothing(int error);         // waits, if `error` says so

  const int fd_;
  const Wait wait_;
  bool is_socket_ = true;  // until the contrary is known
  bool spun_ = false;      // and nothing came, since the last sleep
  size_t received_ = 0;
};

// Whether all that was written to the other end of this one has been read there: `fd` is one of a pair of local sockets, or the
// end of a pipe.  False where the system does not say.
enum class StreamKind { kSocket, kPipe };
bool AllHasBeenRead(int fd, StreamKind kind);

// Writes both, one after the other, completely; `sent` tells how many bytes went out before an error.
absl::Status WriteAll(int fd, std::span<const std::byte> head, std::span<const std::byte> body, Wait wait, size_t* sent);

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_OS_STREAM_H_
