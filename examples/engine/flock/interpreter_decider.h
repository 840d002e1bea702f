// InterpreterDecider: one Python interpreter inside of this process decides, as engines embed Python today.  For comparison.

#ifndef PYHOST_EXAMPLES_ENGINE_FLOCK_INTERPRETER_DECIDER_H_
#define PYHOST_EXAMPLES_ENGINE_FLOCK_INTERPRETER_DECIDER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "decider.h"

namespace flock {

// Once in a process: numpy cannot be loaded twice.
absl::StatusOr<std::unique_ptr<Decider>> StartInterpreterDecider(const std::string& scripts, int64_t agents);

}  // namespace flock

#endif  // PYHOST_EXAMPLES_ENGINE_FLOCK_INTERPRETER_DECIDER_H_
