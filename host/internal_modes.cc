#include "host/internal_modes.h"

#include <cstdio>
#include <span>
#include <string_view>

#include "host/child.h"
#include "host/fork_server.h"
#include "host/supervisor_main.h"

namespace pyhost::host {
namespace {

// One row for each mode: {"name", Function}.  The last row ends the table.
constexpr InternalMode kModes[] = {
    {"supervisor", SupervisorMain},
    {"server", ForkServerMain},
    {"child", ChildMain},
    {nullptr, nullptr},
};

std::span<const InternalMode> Modes() { return {kModes, std::size(kModes) - 1}; }

int UnknownMode(std::string_view name) {
  std::fprintf(stderr, "pyhost: unknown internal mode \"%.*s\" (known:", static_cast<int>(name.size()),
               name.data());
  for (const InternalMode& mode : Modes()) std::fprintf(stderr, " %s", mode.name);
  std::fputs(
      "); internal modes are for pyhost's own processes, and all of a session must be the same build\n",
      stderr);
  return kUsageError;
}

}  // namespace

std::optional<int> RunInternalMode(int argc, char** argv) {
  if (argc < 2) return std::nullopt;
  std::string_view argument = argv[1];
  if (!argument.starts_with(kInternalModeOption)) return std::nullopt;
  std::string_view name = argument.substr(sizeof(kInternalModeOption) - 1);
  for (const InternalMode& mode : Modes()) {
    if (name == mode.name) return mode.run(argc, argv);
  }
  return UnknownMode(name);
}

}  // namespace pyhost::host
