// The program `pyhost`: python3's command line over an embedded CPython (see README.md).

#include <optional>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "host/internal_modes.h"
#include "host/interpreter.h"
#include "host/stdin_program.h"
#include "runtime/broker/object_kinds.h"

int main(int argc, char** argv) {
  // A library built without NDEBUG, as Debian's is, would look for lock cycles with every lock that is taken.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  pyhost::RegisterObjectKinds();
  if (std::optional<int> code = pyhost::host::RunInternalMode(argc, argv)) return *code;
  if (std::optional<int> code = pyhost::host::StartInterpreter({argv, argv + argc})) return *code;
  pyhost::host::KeepProgramFromPipe();
  return pyhost::host::RunMainJob();
}
