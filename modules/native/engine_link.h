// EngineLink: a worker's way to the functions that its engine has exposed (pyhost.engine.call).
//
// A request goes into the pool's reply queue, which the engine drains; the answer comes into a queue of the worker's own, which
// it told the engine of when it began.
//
//   request:  ReplyHeader kRequest | u64 id | u64 size of the name | name | payload as in pickling.h
//   answer:   tag = id; u64 absl::StatusCode | payload as in pickling.h, or the error's message
//
// One thread at a time: pyhost.engine has the lock.

#ifndef PYHOST_MODULES_NATIVE_ENGINE_LINK_H_
#define PYHOST_MODULES_NATIVE_ENGINE_LINK_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "modules/native/module_state.h"
#include "modules/native/python_ref.h"
#include "runtime/broker/call_server.h"
#include "runtime/queue/queue.h"
#include "runtime/session/session.h"

namespace pyhost::native {

class EngineLink {
 public:
  // `server` outlives the link.  Tells the engine that this worker has begun.
  static absl::StatusOr<std::unique_ptr<EngineLink>> Open(Session* session, CallServer& server);
  ~EngineLink();
  EngineLink(const EngineLink&) = delete;
  EngineLink& operator=(const EngineLink&) = delete;

  // (0, value), or (status code, message); null with a Python error.
  PyObject* Call(ModuleState* state, absl::string_view name, PyObject* arguments);

 private:
  EngineLink(Session* session, CallServer& server, Queue answers)
      : session_(session), server_(server), answers_(answers) {}
  bool Ask(ModuleState* state, absl::string_view name, PyObject* arguments);
  static PyObject* ReadAnswer(ModuleState* state, Message answer);

  Session* const session_;
  CallServer& server_;
  Queue answers_;
  uint64_t last_id_ = 0;
};

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_ENGINE_LINK_H_
