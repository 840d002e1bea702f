#include "runtime/engine/engine_session.h"

#include "runtime/base/status_util.h"
#include "runtime/broker/object_kinds.h"

namespace pyhost {

absl::StatusOr<Session*> EnsureEngineSession(const std::string& program, uint64_t shared_memory_limit) {
  RegisterObjectKinds();
  SessionOptions options;
  options.program = program;
  options.name = "engine";
  options.root_flags = HostFlag::kRoot | HostFlag::kEngine;
  options.segment.limit = shared_memory_limit;
  absl::StatusOr<Session*> session = Session::Ensure(options);
  if (!session.ok()) return Annotate(session.status(), "begin a session");
  return session;
}

}  // namespace pyhost
