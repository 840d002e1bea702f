// _pyhost.HandOver: one end of a pipe of this session, seen from beside its descriptor: messages may be handed over to a
// reader that waits (runtime/queue/hand_over.h).  Holds the memory that both ends share.

#ifndef PYHOST_MODULES_NATIVE_HAND_OVER_OBJECT_H_
#define PYHOST_MODULES_NATIVE_HAND_OVER_OBJECT_H_

#include <optional>

#include "modules/native/python_ref.h"
#include "runtime/os/stream.h"
#include "runtime/queue/hand_over.h"

namespace pyhost::native {

struct HandOverObject {
  PyObject_HEAD
  PyObject* memory;       // _pyhost.Memory with both lanes
  HandOverLane* to_peer;  // in it, as is the next; valid as long as `memory` lives
  HandOverLane* from_peer;
  StreamKind kind;        // of the descriptor
};

// The object, or null: `object` is null or None.  What is neither is an error, and makes it false.
bool ParseHandOver(PyObject* object, HandOverObject** hand_over);

// A view of the lane for this process; nothing in a process that is in no session.
std::optional<HandOver> OpenLane(HandOverLane* lane);

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_HAND_OVER_OBJECT_H_
