// Small text files of /proc and /sys, read without iostreams.  Thread-safe.

#ifndef PYHOST_RUNTIME_OS_TEXT_FILE_H_
#define PYHOST_RUNTIME_OS_TEXT_FILE_H_

#include <string>

#include "absl/status/statusor.h"

namespace pyhost {

// The whole file, at most 1 MiB of it.  Errors name the path and carry the errno.
absl::StatusOr<std::string> ReadTextFile(const std::string& path);

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_OS_TEXT_FILE_H_
