#include "modules/native/scalar_pickle.h"

#include <cstdint>
#include <cstring>

#include "modules/native/builtin_reader.h"
#include "modules/native/builtin_writer.h"
#include "modules/native/pickle_bytes.h"
#include "runtime/values/pickle_opcodes.h"

namespace pyhost::native {

using enum pickle::Opcode;

bool AppendScalarPickle(PyObject* object, std::string* out) {
  BuiltinWriter writer;
  if (!writer.Write(object)) return false;
  const std::span<const std::byte> payload = writer.payload();
  out->append(reinterpret_cast<const char*>(payload.data()), payload.size());
  return true;
}

PyObject* ReadScalarPickle(std::span<const std::byte> payload) {
  uint64_t buffers = 0;
  if (payload.size() < sizeof(buffers)) return nullptr;
  std::memcpy(&buffers, payload.data(), sizeof(buffers));
  return buffers == 0 ? ReadBuiltinPickle(payload.subspan(sizeof(buffers))) : nullptr;
}

bool IsGlobalReference(std::span<const std::byte> pickle) {
  PickleBytes bytes(pickle);
  unsigned char opcode = 0, size = 0;
  if (!bytes.Skip(kProto) || !bytes.SkipBytes(1) || !bytes.Byte(&opcode)) return false;
  if (opcode == kFrame && (!bytes.SkipBytes(sizeof(uint64_t)) || !bytes.Byte(&opcode))) return false;
  for (int name = 0; name < 2; ++name) {  // module, qualified name
    if (opcode != kShortBinUnicode || !bytes.Byte(&size) || !bytes.SkipBytes(size) || !bytes.Skip(kMemoize) ||
        !bytes.Byte(&opcode)) {
      return false;
    }
  }
  return opcode == kStackGlobal && bytes.Skip(kMemoize) && bytes.Skip(kStop) && bytes.AtEnd();
}

}  // namespace pyhost::native
