// Where an engine finds the program that its workers are.

#ifndef PYHOST_RUNTIME_ENGINE_PROGRAM_H_
#define PYHOST_RUNTIME_ENGINE_PROGRAM_H_

#include <string>

#include "absl/status/statusor.h"

namespace pyhost {

// The absolute path of the program pyhost: `wish`, or $PYHOST_PROGRAM, or the first that exists of: beside the library (or the
// engine, where it is linked in), in the bin/ above it, in the build tree around it, where it was installed, $PATH.
// NotFound says where it looked.
absl::StatusOr<std::string> FindProgram(const std::string& wish);

// What library and program compare before they work together: "0.1.0".
std::string EngineVersion();

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_ENGINE_PROGRAM_H_
