// Messages over descriptors, for multiprocessing.connection.
//
// A message is a length and that many bytes.  The length is 4 bytes, big-endian and signed; or -1 and 8 bytes,
// big-endian, from 2 GiB on.  The standard library's connections speak the same.

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "modules/native/buffer_view.h"
#include "modules/native/gil_wait.h"
#include "modules/native/module_state.h"
#include "modules/native/status.h"
#include "runtime/os/stream.h"

namespace pyhost::native {
namespace {

constexpr uint64_t kLargestShort = INT32_MAX;
// A length alone, from a peer that may be confused or hostile, makes nobody allocate more than this; from there on
// memory grows with what has come.
constexpr size_t kFirstBytes = 1 << 20;

// ---- The length -------------------------------------------------------------------------------------------------------

template <size_t size>
void PutBigEndian(uint64_t value, std::byte* to) {
  for (size_t i = 0; i < size; ++i) to[i] = static_cast<std::byte>(value >> 8 * (size - 1 - i));
}
template <size_t size>
uint64_t GetBigEndian(const std::byte* from) {
  uint64_t value = 0;
  for (size_t i = 0; i < size; ++i) value = value << 8 | static_cast<uint64_t>(from[i]);
  return value;
}

// Writes the length to `head`; returns how many bytes that took.
size_t PutLength(uint64_t length, std::array<std::byte, 12>* head) {
  if (length <= kLargestShort) {
    PutBigEndian<4>(length, head->data());
    return 4;
  }
  PutBigEndian<4>(UINT32_MAX, head->data());
  PutBigEndian<8>(length, head->data() + 4);
  return 12;
}

// No length if what came is none.
absl::StatusOr<std::optional<size_t>> ReadLength(StreamReader& reader) {
  std::array<std::byte, 8> bytes;
  if (absl::Status filled = reader.Fill(std::span(bytes).first(4)); !filled.ok()) return filled;
  uint64_t length = GetBigEndian<4>(bytes.data());
  if (length == UINT32_MAX) {
    if (absl::Status filled = reader.Fill(bytes); !filled.ok()) return filled;
    length = GetBigEndian<8>(bytes.data());
  } else if (length > kLargestShort) {
    return std::nullopt;
  }
  if (length > static_cast<uint64_t>(PY_SSIZE_T_MAX)) return std::nullopt;
  return static_cast<size_t>(length);
}

// ---- Receiving ----------------------------------------------------------------------------------------------------------

PyObject* SetReceiveError(const absl::Status& status, const StreamReader& reader) {
  if (!absl::IsOutOfRange(status)) return SetError(status);
  if (reader.received() == 0) {
    PyErr_SetNone(PyExc_EOFError);
  } else {
    PyErr_SetString(PyExc_OSError, "got end of file during message");
  }
  return nullptr;
}

std::span<std::byte> BytesOf(PyObject* bytes, size_t from) {
  return std::span(reinterpret_cast<std::byte*>(PyBytes_AS_STRING(bytes)), static_cast<size_t>(PyBytes_GET_SIZE(bytes)))
      .subspan(from);
}

PyObject* ReceiveBytes(StreamReader& reader, size_t size) {
  PyObject* bytes = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(std::min(size, kFirstBytes)));
  for (size_t filled = 0; bytes != nullptr && filled < size;) {
    if (const absl::Status status = reader.Fill(BytesOf(bytes, filled)); !status.ok()) {
      Py_DECREF(bytes);
      return SetReceiveError(status, reader);
    }
    filled = static_cast<size_t>(PyBytes_GET_SIZE(bytes));
    if (filled < size) _PyBytes_Resize(&bytes, static_cast<Py_ssize_t>(std::min(size, 2 * filled)));
  }
  return bytes;
}

PyObject* ReceiveMessage(PyObject*, PyObject* args) {
  int fd;
  Py_ssize_t limit = PY_SSIZE_T_MAX;
  if (!PyArg_ParseTuple(args, "i|n:receive_message", &fd, &limit)) return nullptr;
  GilWait gil;
  StreamReader reader(fd, gil.Until(Deadline::Never()));
  const absl::StatusOr<std::optional<size_t>> length = ReadLength(reader);
  if (!length.ok()) return SetReceiveError(length.status(), reader);
  if (!length->has_value() || **length > static_cast<size_t>(limit)) Py_RETURN_NONE;
  return ReceiveBytes(reader, **length);
}

PyObject* ReceiveInto(PyObject*, PyObject* args) {
  int fd;
  PyObject* target;
  BufferView view;
  if (!PyArg_ParseTuple(args, "iO:receive_into", &fd, &target) || !view.Acquire(target, PyBUF_WRITABLE)) return nullptr;
  GilWait gil;
  StreamReader reader(fd, gil.Until(Deadline::Never()));
  const absl::StatusOr<std::optional<size_t>> length = ReadLength(reader);
  if (!length.ok()) return SetReceiveError(length.status(), reader);
  if (!length->has_value()) Py_RETURN_NONE;
  if (**length > view.bytes().size()) return ReceiveBytes(reader, **length);
  const absl::Status filled = reader.Fill(view.bytes().first(**length));
  return filled.ok() ? PyLong_FromSize_t(**length) : SetReceiveError(filled, reader);
}

PyObject* WaitReadable(PyObject*, PyObject* args) {
  int fd;
  PyObject* timeout = nullptr;
  Deadline deadline = Deadline::Never();
  if (!PyArg_ParseTuple(args, "i|O:wait_for_input", &fd, &timeout) || !ParseTimeout(timeout, &deadline)) return nullptr;
  GilWait gil;
  const absl::Status status = WaitForInput(fd, gil.Until(deadline));
  if (status.ok()) Py_RETURN_TRUE;
  if (absl::IsDeadlineExceeded(status)) Py_RETURN_FALSE;
  return SetError(status);
}

// ---- Sending ------------------------------------------------------------------------------------------------------------

PyObject* SendMessage(PyObject*, PyObject* args) {
  int fd;
  PyObject* data;
  BufferView view;
  if (!PyArg_ParseTuple(args, "iO:send_message", &fd, &data) || !view.Acquire(data)) return nullptr;
  std::array<std::byte, 12> head;
  const size_t head_size = PutLength(view.bytes().size(), &head);
  GilWait gil;
  size_t sent = 0;
  const absl::Status status =
      WriteAll(fd, std::span(head).first(head_size), view.bytes(), gil.Until(Deadline::Never()), &sent);
  if (!status.ok()) return SetError(status);
  Py_RETURN_NONE;
}

PyMethodDef kFunctions[] = {
    {"send_message", SendMessage, METH_VARARGS, "send_message(fd, data)"},
    {"receive_message", ReceiveMessage, METH_VARARGS,
     "receive_message(fd, limit) -> bytes\n\nNone when what came is no length, or one above `limit`: reading is over then.\n"
     "EOFError at an end of file before the message."},
    {"receive_into", ReceiveInto, METH_VARARGS,
     "receive_into(fd, buffer) -> size of the message\n\nThe message itself where it does not fit; None as receive_message."},
    {"wait_for_input", WaitReadable, METH_VARARGS,
     "wait_for_input(fd, timeout=None) -> bool: whether there is something to read, or an end of file"},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int BindConnection(PyObject* module, ModuleState*) { return PyModule_AddFunctions(module, kFunctions); }

}  // namespace pyhost::native
