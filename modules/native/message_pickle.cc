#include "modules/native/message_pickle.h"

#include <utility>

#include "modules/native/scalar_pickle.h"

namespace pyhost::native {

PyObject* UnpickleMessage(ModuleState* state, Message&& message) {
  const std::span<const std::byte> payload = message.payload();
  if (PyObject* plain = ReadScalarPickle(payload)) return plain;
  if (PyErr_Occurred()) return nullptr;
  return Unpickle(state, std::move(message), payload);
}

}  // namespace pyhost::native
