// What the internal modes share of their command lines.

#ifndef PYHOST_HOST_INTERNAL_ARGUMENTS_H_
#define PYHOST_HOST_INTERNAL_ARGUMENTS_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "runtime/os/unique_fd.h"

namespace pyhost::host {

// The descriptor in "--<name>=<number>", made close-on-exec; invalid where there is none.
UniqueFd TakeDescriptorArgument(int argc, char** argv, std::string_view name);

// Puts /dev/null where descriptor 0, 1 or 2 is not open (a program that daemonizes may have closed them, or made them
// close-on-exec), so that nothing else gets these numbers.  Before anything is opened.
void FillStandardStreams();

// Says on stderr what went wrong in an internal mode, and gives its exit code.
int ReportInternalError(std::string_view who, const absl::Status& status);

// Builds with crash points: the variable PYHOST_CRASH, "<role>/<point>:<file>", arms a crash point in the first process
// of that role ("supervisor", or the method of a server) that manages to remove the file.  Otherwise nothing.
void ArmCrashPoint(const std::string& role);

}  // namespace pyhost::host

#endif  // PYHOST_HOST_INTERNAL_ARGUMENTS_H_
