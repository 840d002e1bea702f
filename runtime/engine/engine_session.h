// The session of an engine's process: it is the root, without an interpreter.

#ifndef PYHOST_RUNTIME_ENGINE_ENGINE_SESSION_H_
#define PYHOST_RUNTIME_ENGINE_ENGINE_SESSION_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/session/session.h"

namespace pyhost {

// The session of this process, begun when there is none: then `program` is what all of its processes run, and
// `shared_memory_limit` (bytes; 0: the default) bounds its segment.  Lives as long as the process.  Thread-safe.
absl::StatusOr<Session*> EnsureEngineSession(const std::string& program, uint64_t shared_memory_limit);

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_ENGINE_ENGINE_SESSION_H_
