// What a running interpreter keeps copies of, brought up to date after the process around it has changed: a forked
// child that took over its starter's environment, signals and descriptors.
//
// Needs the GIL.  An error carries Python's own message; no Python error stays set.

#ifndef PYHOST_HOST_INTERPRETER_STATE_H_
#define PYHOST_HOST_INTERPRETER_STATE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace pyhost::host {

// os.environ becomes the process's environment, which is `entries` already.
absl::Status AdoptEnvironment(const std::vector<std::string>& entries);

// signal.getsignal() agrees with the process: bit n-1 of `ignored` = signal n is ignored; of `before`: it was.
absl::Status AdoptSignals(uint64_t ignored, uint64_t before);

// sys.stdin, stdout or stderr (0, 1, 2) is made anew on its descriptor, as at start-up; None where that is closed.
absl::Status RemakeStream(int number, bool is_open);

// The text of the current Python error, which is cleared.
absl::Status TakePythonError(const char* doing);

}  // namespace pyhost::host

#endif  // PYHOST_HOST_INTERPRETER_STATE_H_
