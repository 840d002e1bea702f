#include "modules/native/engine_link.h"

#include <array>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "modules/native/gil_wait.h"
#include "modules/native/pickling.h"
#include "modules/native/scalar_pickle.h"
#include "modules/native/status.h"
#include "runtime/segment/handle_refs.h"

namespace pyhost::native {

absl::StatusOr<std::unique_ptr<EngineLink>> EngineLink::Open(Session* session, CallServer& server) {
  absl::StatusOr<Queue> answers = Queue::Create(session->segment(), session->me());
  if (!answers.ok()) return answers.status();
  const Handle handle = answers->handle();
  session->segment().refs().Adopt(handle, session->me());
  std::unique_ptr<EngineLink> link(new EngineLink(session, server, *answers));
  absl::Status told = server.Notice(ReplyKind::kReady, {}, {&handle, 1});
  if (!told.ok()) return told;
  return link;
}

EngineLink::~EngineLink() { session_->segment().refs().Release(answers_.handle(), session_->me()); }

PyObject* EngineLink::Call(ModuleState* state, absl::string_view name, PyObject* arguments) {
  if (!Ask(state, name, arguments)) return nullptr;
  for (;;) {
    GilWait gil;
    absl::StatusOr<Message> answer = answers_.Pop(gil.Until(Deadline::Never()));
    if (!answer.ok()) return SetError(answer.status());
    // Others are answers to requests whose wait was interrupted.
    if (answer->tag() == last_id_) return ReadAnswer(state, *std::move(answer));
  }
}

bool EngineLink::Ask(ModuleState* state, absl::string_view name, PyObject* arguments) {
  const std::array<uint64_t, 2> head = {++last_id_, name.size()};
  std::vector<std::span<const std::byte>> parts = {std::as_bytes(std::span(head)), std::as_bytes(std::span(name))};
  std::string scalar;
  Pickled pickled;
  if (AppendScalarPickle(arguments, &scalar)) {
    parts.push_back(std::as_bytes(std::span(scalar)));
  } else if (Pickle(state, arguments, &pickled)) {
    parts.insert(parts.end(), pickled.parts().begin(), pickled.parts().end());
  } else {
    return false;
  }
  const absl::Status asked = server_.Notice(ReplyKind::kRequest, parts, pickled.handles());
  if (!asked.ok()) SetError(asked);
  return asked.ok();
}

PyObject* EngineLink::ReadAnswer(ModuleState* state, Message answer) {
  std::span<const std::byte> payload = answer.payload();
  uint64_t code = 0;
  if (payload.size() < sizeof(code)) return SetError(absl::DataLossError("malformed answer: no status"));
  std::memcpy(&code, payload.data(), sizeof(code));
  payload = payload.subspan(sizeof(code));
  if (code != 0) {
    // An engine's texts may be in any encoding: that is no reason to raise another error than it reported.
    return Py_BuildValue("KN", static_cast<unsigned long long>(code),
                         PyUnicode_DecodeUTF8(reinterpret_cast<const char*>(payload.data()),
                                              static_cast<Py_ssize_t>(payload.size()), "backslashreplace"));
  }
  PyRef value = PyRef::Steal(ReadScalarPickle(payload));
  if (!value && !PyErr_Occurred()) value = PyRef::Steal(Unpickle(state, std::move(answer), payload));
  return value ? Py_BuildValue("iO", 0, value.get()) : nullptr;
}

}  // namespace pyhost::native
