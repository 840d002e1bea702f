// Pickling into and out of messages: what Python's Queue, Pool and start payloads share.
//
// Message payload:  u64 buffer count n | n x u64 {size:63, readonly:1} | pickle bytes (protocol 5)
// Message handles:  the n out-of-band buffers (Memory objects) first, then the handles met while pickling.
//
// Buffers of kOutOfBandBytes or more go out of band: one copy into the segment, read in place on the other
// side, writable where the original was.  Smaller ones stay in the pickle.
//
// Reducers are those of multiprocessing.reduction.ForkingPickler (copyreg's table with its own on top); a
// program that replaced that class is honoured, at its own speed.

#ifndef PYHOST_MODULES_NATIVE_PICKLING_H_
#define PYHOST_MODULES_NATIVE_PICKLING_H_

#include <cstddef>
#include <span>
#include <vector>

#include "modules/native/module_state.h"
#include "modules/native/python_ref.h"
#include "runtime/base/ids.h"
#include "runtime/queue/queue.h"

namespace pyhost::native {

inline constexpr size_t kOutOfBandBytes = 16 * 1024;

// Whether large buffers are copied.  kAsItIs is for an object that the caller lets go of: what came out of band in a message
// before, and nobody else has, goes on as it is.
enum class Give { kCopies, kAsItIs };

// A pickled object, ready to be pushed.  Holds what the views point into; gives the out-of-band Memory objects back on
// destruction (after a push the frame keeps them alive).
class Pickled {
 public:
  Pickled() = default;
  Pickled(Pickled&& other) noexcept;
  Pickled& operator=(Pickled&&) = delete;
  ~Pickled();

  // The payload described above, to be gathered in this order (after parts of the caller's own, if any).
  std::span<const std::span<const std::byte>> parts() const { return parts_; }
  std::span<const Handle> handles() const { return handles_; }
  size_t size() const;

  // Some of the handles are memory that the pickled object itself uses (Give::kAsItIs).
  bool gives() const { return !given_.empty(); }
  // To be called then, once the object was let go of: what somebody kept for himself after all is copied.  False with a
  // Python error.
  bool CopyWhatWasKept();

 private:
  friend bool Pickle(ModuleState* state, PyObject* object, Pickled* out, Give give);
  std::vector<uint64_t> header_;
  PyRef writer_;  // owns the pickle's pieces and our count on the out-of-band objects
  std::vector<std::span<const std::byte>> parts_;
  std::vector<Handle> handles_;
  std::vector<size_t> given_;  // of handles_
};

// May plain builtins be written without a pickler?  Not when the program put a class of its own in the place of
// ForkingPickler, and not when there is no such thing (then Pickle() has the error).
bool MayDoWithoutPickler(ModuleState* state);

// False with the Python error that pickling raised.
bool Pickle(ModuleState* state, PyObject* object, Pickled* out, Give give = Give::kCopies);

// Unpickles `payload`, which lies in `message` (the whole payload, or the rest behind the caller's own header).
// Out-of-band buffers keep their Memory objects alive by themselves; `message` is consumed.
// Null with the Python error that unpickling raised (DataLoss -> OSError for a malformed payload).
// kPrivate: what this process writes to the buffers stays here, so that another can still read what was sent.
enum class Buffers { kShared, kPrivate };
PyObject* Unpickle(ModuleState* state, Message&& message, std::span<const std::byte> payload,
                   Buffers access = Buffers::kShared);

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_PICKLING_H_
