// Messages over descriptors, for multiprocessing.connection.
//
// A message is a length and that many bytes.  The length is 4 bytes, big-endian and signed; or -1 and 8 bytes,
// big-endian, from 2 GiB on.  The standard library's connections speak the same.  Between the two ends of a Pipe a small
// message may pass beside the descriptor, to a reader that waits for it (hand_over_object.h).

#include <algorithm>
#include <array>
#include <climits>
#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "modules/native/buffer_view.h"
#include "modules/native/gil_wait.h"
#include "modules/native/hand_over_object.h"
#include "modules/native/module_state.h"
#include "modules/native/status.h"
#include "runtime/base/status_util.h"
#include "runtime/os/cpu.h"
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

using Head = std::array<std::byte, 4>;

// No length if what came is none.  Its first bytes have been read.
absl::StatusOr<std::optional<size_t>> ReadLengthAfter(const Head& head, StreamReader& reader) {
  uint64_t length = GetBigEndian<4>(head.data());
  if (length == UINT32_MAX) {
    std::array<std::byte, 8> bytes;
    PYHOST_RETURN_IF_ERROR(reader.Fill(bytes));
    length = GetBigEndian<8>(bytes.data());
  } else if (length > kLargestShort) {
    return std::nullopt;
  }
  if (length > static_cast<uint64_t>(PY_SSIZE_T_MAX)) return std::nullopt;
  return static_cast<size_t>(length);
}

absl::StatusOr<std::optional<size_t>> ReadLength(StreamReader& reader) {
  Head head;
  PYHOST_RETURN_IF_ERROR(reader.Fill(head));
  return ReadLengthAfter(head, reader);
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

PyObject* BytesFrom(std::span<const std::byte> bytes) {
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(bytes.data()), static_cast<Py_ssize_t>(bytes.size()));
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

// Ends a sleep for a descriptor when a message was left behind in the lane meanwhile: who was given it may have died, or
// become known to have died, after the look before that sleep.
class LaneWatch final : public Interruptible {
 public:
  // `reader`, if there is one, must not have begun a message.
  LaneWatch(GilWait* gil, const HandOver& lane, const StreamReader* reader = nullptr)
      : gil_(gil), lane_(lane), reader_(reader) {}

  absl::Status OnSignal() override {
    PYHOST_RETURN_IF_ERROR(gil_->OnSignal());
    if ((reader_ != nullptr && reader_->received() != 0) || !lane_.IsLeftBehind()) return absl::OkStatus();
    return absl::AbortedError("a message was left behind");
  }
  void BeginBlocking() override { gil_->BeginBlocking(); }
  void EndBlocking() override { gil_->EndBlocking(); }

 private:
  GilWait* const gil_;
  const HandOver& lane_;
  const StreamReader* const reader_;
};

// One incoming message, by whichever way it comes.
class Receiver {
 public:
  // `hand_over` may be null.
  Receiver(int fd, HandOverObject* hand_over)
      : fd_(fd),
        lane_(hand_over == nullptr ? std::nullopt : OpenLane(hand_over->from_peer)),
        watch_(lane_ ? std::optional<LaneWatch>(std::in_place, &gil_, *lane_, &reader_) : std::nullopt),
        reader_(fd, {Deadline::Never(), watch_ ? static_cast<Interruptible*>(&*watch_) : &gil_}) {}
  Receiver(const Receiver&) = delete;
  Receiver& operator=(const Receiver&) = delete;

  // Its length; none if what came is none.  From then on, if is_by_hand(), it has come.
  absl::StatusOr<std::optional<size_t>> Begin();
  std::span<const std::byte> by_hand() const { return std::span(bytes_).first(size_); }
  bool is_by_hand() const { return is_by_hand_; }
  StreamReader& reader() { return reader_; }

 private:
  absl::Status TakeByHand();

  const int fd_;
  GilWait gil_;
  std::optional<HandOver> lane_;
  std::optional<LaneWatch> watch_;
  StreamReader reader_;
  bool is_by_hand_ = false;
  size_t size_ = 0;
  std::array<std::byte, HandOverLane::kMaxBytes> bytes_;  // only the first size_ are ever set
};

// Tells givers that somebody waits, for as long as spinning pays.  If nobody gave, the descriptor has to be read.  What was left
// behind is there at once, wherever spinning pays.
absl::Status Receiver::TakeByHand() {
  if (!SpinningPays() && !lane_->IsLeftBehind()) return absl::OkStatus();
  if (!lane_->Announce()) return absl::OkStatus();
  // Not to be undone by what taking the interpreter back may do to a thread.
  BlockingScope blocking(&gil_);
  SpinForInput(fd_, Deadline::Never(), [this] { return lane_->Given(); });
  reader_.SkipSpin();
  if (lane_->Withdraw()) return absl::OkStatus();
  PYHOST_ASSIGN_OR_RETURN(size_, lane_->Take(bytes_));
  is_by_hand_ = true;
  return absl::OkStatus();
}

absl::StatusOr<std::optional<size_t>> Receiver::Begin() {
  if (!lane_) return ReadLength(reader_);
  // Where the last one came from the next is looked for first: a try at the wrong place costs a system call.
  Head head;
  if (!lane_->comes_by_hand() && !lane_->IsLeftBehind()) {
    const absl::StatusOr<bool> there = reader_.FillIfThere(head);
    if (!there.ok() && !absl::IsAborted(there.status())) return there.status();  // aborted: see LaneWatch
    if (there.ok() && *there) return ReadLengthAfter(head, reader_);
  }
  for (;;) {
    PYHOST_RETURN_IF_ERROR(TakeByHand());
    lane_->set_comes_by_hand(is_by_hand_);
    if (is_by_hand_) return size_;
    const absl::StatusOr<std::optional<size_t>> length = ReadLength(reader_);
    if (!absl::IsAborted(length.status())) return length;
  }
}

// The arguments fd, something, hand_over=None.
bool ParseTransfer(const char* function, PyObject* const* args, Py_ssize_t count, int* fd, HandOverObject** hand_over) {
  if (count != 2 && count != 3) {
    PyErr_Format(PyExc_TypeError, "%s() takes 2 or 3 arguments, not %zd", function, count);
    return false;
  }
  const long number = PyLong_AsLong(args[0]);
  if (number == -1 && PyErr_Occurred()) return false;
  *fd = number < 0 || number > INT_MAX ? -1 : static_cast<int>(number);
  return ParseHandOver(count == 3 ? args[2] : nullptr, hand_over);
}

PyObject* ReceiveMessage(PyObject*, PyObject* const* args, Py_ssize_t count) {
  int fd;
  HandOverObject* hand_over;
  if (!ParseTransfer("receive_message", args, count, &fd, &hand_over)) return nullptr;
  const Py_ssize_t limit = PyNumber_AsSsize_t(args[1], PyExc_OverflowError);
  if (limit == -1 && PyErr_Occurred()) return nullptr;
  Receiver receiver(fd, hand_over);
  const absl::StatusOr<std::optional<size_t>> length = receiver.Begin();
  if (!length.ok()) return SetReceiveError(length.status(), receiver.reader());
  if (!length->has_value() || **length > static_cast<size_t>(limit)) Py_RETURN_NONE;
  return receiver.is_by_hand() ? BytesFrom(receiver.by_hand()) : ReceiveBytes(receiver.reader(), **length);
}

PyObject* ReceiveInto(PyObject*, PyObject* const* args, Py_ssize_t count) {
  int fd;
  HandOverObject* hand_over;
  BufferView view;
  if (!ParseTransfer("receive_into", args, count, &fd, &hand_over) || !view.Acquire(args[1], PyBUF_WRITABLE)) return nullptr;
  Receiver receiver(fd, hand_over);
  const absl::StatusOr<std::optional<size_t>> length = receiver.Begin();
  if (!length.ok()) return SetReceiveError(length.status(), receiver.reader());
  if (!length->has_value()) Py_RETURN_NONE;
  const bool fits = **length <= view.bytes().size();
  if (receiver.is_by_hand()) {
    if (!fits) return BytesFrom(receiver.by_hand());
    std::ranges::copy(receiver.by_hand(), view.bytes().begin());
    return PyLong_FromSize_t(**length);
  }
  if (!fits) return ReceiveBytes(receiver.reader(), **length);
  const absl::Status filled = receiver.reader().Fill(view.bytes().first(**length));
  return filled.ok() ? PyLong_FromSize_t(**length) : SetReceiveError(filled, receiver.reader());
}

PyObject* WaitReadable(PyObject*, PyObject* args) {
  int fd;
  PyObject *timeout = nullptr, *hand_over_object = nullptr;
  HandOverObject* hand_over;
  Deadline deadline = Deadline::Never();
  if (!PyArg_ParseTuple(args, "i|OO:wait_for_input", &fd, &timeout, &hand_over_object) ||
      !ParseTimeout(timeout, &deadline) || !ParseHandOver(hand_over_object, &hand_over)) {
    return nullptr;
  }
  GilWait gil;
  const std::optional<HandOver> lane = hand_over == nullptr ? std::nullopt : OpenLane(hand_over->from_peer);
  if (lane && lane->IsLeftBehind()) Py_RETURN_TRUE;
  std::optional<LaneWatch> watch;
  if (lane) watch.emplace(&gil, *lane);
  const absl::Status status = WaitForInput(fd, {deadline, watch ? static_cast<Interruptible*>(&*watch) : &gil});
  if (absl::IsAborted(status)) Py_RETURN_TRUE;
  if (status.ok()) Py_RETURN_TRUE;
  if (absl::IsDeadlineExceeded(status)) Py_RETURN_FALSE;
  return SetError(status);
}

// ---- Sending ------------------------------------------------------------------------------------------------------------

bool GiveByHand(int fd, HandOverObject* hand_over, std::span<const std::byte> message) {
  std::optional<HandOver> lane = OpenLane(hand_over->to_peer);
  return lane && lane->Give(message, [&] { return AllHasBeenRead(fd, hand_over->kind); });
}

PyObject* SendMessage(PyObject*, PyObject* const* args, Py_ssize_t count) {
  int fd;
  HandOverObject* hand_over;
  BufferView view;
  if (!ParseTransfer("send_message", args, count, &fd, &hand_over) || !view.Acquire(args[1])) return nullptr;
  if (hand_over != nullptr && GiveByHand(fd, hand_over, view.bytes())) Py_RETURN_NONE;
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
    {"send_message", AsMethod(SendMessage), METH_FASTCALL,
     "send_message(fd, data, hand_over=None)\n\nBy `hand_over` if its reader waits."},
    {"receive_message", AsMethod(ReceiveMessage), METH_FASTCALL,
     "receive_message(fd, limit, hand_over=None) -> bytes\n\nNone when what came is no length, or one above `limit`: reading is over then.\n"
     "EOFError at an end of file before the message."},
    {"receive_into", AsMethod(ReceiveInto), METH_FASTCALL,
     "receive_into(fd, buffer, hand_over=None) -> size of the message\n\nThe message itself where it does not fit; None as receive_message."},
    {"wait_for_input", WaitReadable, METH_VARARGS,
     "wait_for_input(fd, timeout=None, hand_over=None) -> bool: whether there is something to read, or an end of file"},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

int BindConnection(PyObject* module, ModuleState*) { return PyModule_AddFunctions(module, kFunctions); }

}  // namespace pyhost::native
