#include "host/modules_dir.h"

#include <filesystem>
#include <system_error>

// Set by meson: the build's own folder for the program, the source tree's modules/, and the way from the
// installed program's folder to its modules.
#if !defined(PYHOST_BUILD_DIR) || !defined(PYHOST_SOURCE_MODULES) || !defined(PYHOST_INSTALLED_MODULES)
#error "build with meson: it says where the modules are"
#endif

namespace pyhost::host {
namespace {

namespace fs = std::filesystem;

fs::path Resolved(const fs::path& path) {
  std::error_code error;
  fs::path resolved = fs::canonical(path, error);
  return error ? fs::path() : resolved;
}

fs::path ModulesOf(const fs::path& folder) {
  std::error_code error;
  if (fs::equivalent(folder, PYHOST_BUILD_DIR, error)) return PYHOST_SOURCE_MODULES;
  return (folder / PYHOST_INSTALLED_MODULES).lexically_normal();
}

std::string& OtherProgram() {
  static std::string* program = new std::string;
  return *program;
}

}  // namespace

std::string RunningProgram() {
  return Resolved(OtherProgram().empty() ? fs::path("/proc/self/exe") : fs::path(OtherProgram())).string();
}

void SetProgram(const std::string& program) { OtherProgram() = program; }

ModulesDir FindModulesDir(const std::string& other_folder) {
  ModulesDir result;
  for (const fs::path& folder : {fs::path(RunningProgram()).parent_path(), Resolved(other_folder)}) {
    if (folder.empty()) continue;
    std::string candidate = ModulesOf(folder).string();
    if (!result.looked.empty() && result.looked.back() == candidate) continue;
    result.looked.push_back(candidate);
    std::error_code error;
    if (fs::is_directory(candidate, error)) {
      result.path = candidate;
      return result;
    }
  }
  return result;
}

}  // namespace pyhost::host
