#include "modules/native/call_outcome.h"

#include <cstring>
#include <span>
#include <string>
#include <utility>

#include "modules/native/pickling.h"
#include "modules/native/scalar_pickle.h"
#include "modules/native/status.h"

namespace pyhost::native {
namespace {

PyRef DecodeLost(CallsState* calls, std::span<const std::byte> bytes) {
  LostWorker lost;
  std::memcpy(&lost, bytes.data(), sizeof(lost));
  const ExitStatus exit = ExitStatus::Decode(lost.exit);
  PyRef arguments[] = {PyRef::Steal(PyLong_FromLong(lost.pid)),
                       PyRef::Steal(PyUnicode_FromString(HostId::FromValue(lost.host).ToString().c_str())),
                       PyRef::Steal(PyLong_FromLong(exit.ExitCode())),
                       PyRef::Steal(PyUnicode_FromString(exit.ToString().c_str()))};
  for (const PyRef& argument : arguments) {
    if (!argument) return {};
  }
  return CallOutcomes(ModuleOf(calls), "lost_call",
                      {calls->function_name.get(), arguments[0].get(), arguments[1].get(), arguments[2].get(),
                       arguments[3].get(), AsClient(calls->owner.get())->faults.get()});
}

PyRef DecodeStatus(CallsState* calls, const Arrival& arrival) {
  if (auto refused = calls->refused.find(arrival.index); refused != calls->refused.end()) {
    PyRef error = std::move(refused->second);
    calls->refused.erase(refused);
    return error;
  }
  PyRef lost = PyRef::Borrow(absl::IsAborted(arrival.status) ? Py_True : Py_False);
  PyRef message = PyRef::Steal(PyUnicode_FromString(std::string(arrival.status.message()).c_str()));
  if (!message) return {};
  return CallOutcomes(ModuleOf(calls), "call_without_outcome", {calls->function_name.get(), message.get(), lost.get()});
}

PyRef DecodeValue(ModuleState* module, Message&& message, std::span<const std::byte> bytes) {
  PyRef value = PyRef::Steal(ReadScalarPickle(bytes));
  if (value || PyErr_Occurred()) return value;
  return PyRef::Steal(Unpickle(module, std::move(message), bytes));
}

PyRef DecodeError(CallsState* calls, std::span<const std::byte> packed, const char* unpack) {
  PyRef bytes = PyRef::Steal(PyBytes_FromStringAndSize(reinterpret_cast<const char*>(packed.data()),
                                                       static_cast<Py_ssize_t>(packed.size())));
  if (!bytes) return {};
  return CallOutcomes(ModuleOf(calls), unpack, {calls->function_name.get(), bytes.get()});
}

void DecodeResult(CallsState* calls, Message&& message, std::span<const std::byte> bytes, Outcome* outcome) {
  outcome->value = DecodeValue(ModuleOf(calls), std::move(message), bytes);
  outcome->ok = static_cast<bool>(outcome->value);
  outcome->ending = outcome->ok ? Ending::kValue : Ending::kUnreadable;
  if (outcome->ok || !PyErr_ExceptionMatches(PyExc_Exception)) return;
  PyRef error = TakeException();
  outcome->value = CallOutcomes(ModuleOf(calls), "unreadable_result", {calls->function_name.get(), error.get()});
}

}  // namespace

bool Decode(CallsState* calls, Arrival arrival, Outcome* outcome) {
  if (!arrival.verdict.empty()) {
    outcome->ending = Ending::kRaised;
    outcome->value = DecodeError(calls, std::as_bytes(std::span(arrival.verdict)), "unpack_verdict");
    return static_cast<bool>(outcome->value);
  }
  if (!arrival.status.ok()) {
    outcome->ending = absl::IsAborted(arrival.status) ? Ending::kLost : Ending::kNotRun;
    outcome->value = DecodeStatus(calls, arrival);
    return static_cast<bool>(outcome->value);
  }
  const absl::StatusOr<ReplyView> reply = ParseReply(arrival.message.payload());
  if (!reply.ok()) return SetError(reply.status()) != nullptr;
  if (reply->kind == ReplyKind::kLost) {
    outcome->ending = Ending::kLost;
    outcome->value = DecodeLost(calls, reply->outcome);
  } else if (reply->kind == ReplyKind::kError) {
    outcome->ending = Ending::kRaised;
    outcome->value = DecodeError(calls, reply->outcome, "unpack_exception");
  } else {
    DecodeResult(calls, std::move(arrival.message), reply->outcome, outcome);
  }
  return static_cast<bool>(outcome->value);
}

PyObject* OutcomeTuple(const Outcome& outcome) {
  return PyTuple_Pack(2, outcome.ok ? Py_True : Py_False, outcome.value.get());
}

}  // namespace pyhost::native
