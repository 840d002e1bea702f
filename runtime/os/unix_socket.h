// Datagrams with descriptors over Unix sockets, and where our own descriptors live.
//
// Every socket here is SOCK_SEQPACKET (datagrams with an end-of-file), close-on-exec and non-blocking.  EINTR
// is handled here.  Stateless, thread-safe.

#ifndef PYHOST_RUNTIME_OS_UNIX_SOCKET_H_
#define PYHOST_RUNTIME_OS_UNIX_SOCKET_H_

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/wait.h"
#include "runtime/os/unique_fd.h"

namespace pyhost {

// Descriptors one datagram can carry (the kernel's SCM_MAX_FD is 253).
inline constexpr size_t kMaxDescriptorsPerDatagram = 253;

// Our own descriptors live at this number or above (where RLIMIT_NOFILE allows it), out of the way of
// programs that close or choose low numbers.
inline constexpr int kInternalDescriptorBase = 200;

// Moves `fd` to a high number, close-on-exec.  EMFILE names RLIMIT_NOFILE and its value.
absl::StatusOr<UniqueFd> MoveToHighNumber(UniqueFd fd, int at_least = kInternalDescriptorBase);
// A close-on-exec duplicate at a high number; `fd` stays open.
absl::StatusOr<UniqueFd> DuplicateHigh(int fd, int at_least = kInternalDescriptorBase);

// Two connected sockets at high numbers.
absl::StatusOr<std::pair<UniqueFd, UniqueFd>> DatagramSocketPair();

// Sends one datagram, all or nothing; waits (as `wait` allows) while the receiver's queue is full.
// Unavailable: the other end is closed.  DeadlineExceeded: still full.
absl::Status SendDatagram(int socket, std::span<const std::byte> bytes, std::span<const int> fds, Wait wait);

struct ReceivedDatagram {
  size_t size = 0;             // bytes received; 0 with end_of_file or would_block
  std::vector<UniqueFd> fds;   // close-on-exec, moved to high numbers
  bool end_of_file = false;
  bool would_block = false;
  absl::Status descriptors;    // an error (EMFILE): not all of its descriptors fit into this process's table
};
// Takes one datagram, never waits.  DataLoss: it was longer than the buffer.
absl::StatusOr<ReceivedDatagram> ReceiveDatagram(int socket, std::span<std::byte> buffer);

// True when every other end of `socket` has been closed.
bool PeerIsGone(int socket);

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_OS_UNIX_SOCKET_H_
