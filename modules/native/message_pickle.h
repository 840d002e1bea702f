// Objects as messages of a queue, and back: by our own codec where it can (builtin_writer.h, builtin_reader.h), by pickle
// otherwise.

#ifndef PYHOST_MODULES_NATIVE_MESSAGE_PICKLE_H_
#define PYHOST_MODULES_NATIVE_MESSAGE_PICKLE_H_

#include <span>

#include "modules/native/builtin_writer.h"
#include "modules/native/module_state.h"
#include "modules/native/pickling.h"
#include "runtime/queue/queue.h"

namespace pyhost::native {

// One object, ready to be pushed.  Lives on the stack of one call; never moves.
class PickledMessage {
 public:
  PickledMessage() = default;
  PickledMessage(const PickledMessage&) = delete;
  PickledMessage& operator=(const PickledMessage&) = delete;

  // Once only.  False with the Python error that pickling raised.
  bool Take(ModuleState* state, PyObject* object) {
    if (!MayDoWithoutPickler(state) || !writer_.Write(object)) return Pickle(state, object, &pickled_);
    plain_ = writer_.payload();
    return true;
  }
  MessageView message() const {
    if (plain_.empty()) return {.parts = pickled_.parts(), .handles = pickled_.handles()};
    return {.parts = {&plain_, 1}, .handles = {}};
  }

 private:
  BuiltinWriter writer_;
  Pickled pickled_;
  std::span<const std::byte> plain_;  // in writer_; empty: it is in pickled_
};

// The object that a message is; null with the Python error that unpickling raised.
PyObject* UnpickleMessage(ModuleState* state, Message&& message);

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_MESSAGE_PICKLE_H_
