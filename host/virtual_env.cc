#include "host/virtual_env.h"

#include <unistd.h>

#include <patchlevel.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace pyhost::host {
namespace {

namespace fs = std::filesystem;

constexpr char kConfigFile[] = "pyvenv.cfg";

bool IsFile(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

bool LiesInEnvironment(const fs::path& program) {
  fs::path folder = program.parent_path();
  return IsFile(folder.parent_path() / kConfigFile) || IsFile(folder / kConfigFile);
}

std::string Trimmed(const std::string& text) {
  constexpr char kSpace[] = " \t\r";
  size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

// "3.11" out of the configuration's `version = 3.11.2` (venv) or `version_info = 3.11.2.final.0` (virtualenv);
// empty where it says neither.
std::string VersionOf(const fs::path& config) {
  std::ifstream file(config);
  for (std::string line; std::getline(file, line);) {
    size_t equals = line.find('=');
    if (equals == std::string::npos) continue;
    std::string key = Trimmed(line.substr(0, equals));
    if (key != "version" && key != "version_info") continue;
    std::string value = Trimmed(line.substr(equals + 1));
    size_t minor = value.find('.');
    return minor == std::string::npos ? value : value.substr(0, value.find('.', minor + 1));
  }
  return "";
}

std::string OwnVersion() {
  return absl::StrCat(PY_MAJOR_VERSION, ".", PY_MINOR_VERSION);
}

// Empty where the environment can be used, else why not, and what to do.
std::string WhyUnusable(const fs::path& environment) {
  fs::path config = environment / kConfigFile;
  if (!IsFile(config)) {
    return absl::StrCat("there is no ", config.string(), " (run `deactivate`, or create the environment anew)");
  }
  std::string version = VersionOf(config);
  if (version.empty() || version == OwnVersion()) return "";
  return absl::StrCat("it was made with Python ", version, ", and this pyhost runs Python ", OwnVersion(),
                      " (create one with `pyhost -m venv`)");
}

}  // namespace

std::string ProgramPath(const std::string& argv0) {
  std::error_code error;
  if (argv0.find('/') != std::string::npos) return fs::absolute(argv0, error).string();
  const char* path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    fs::path candidate = fs::path(folder) / argv0;
    if (IsFile(candidate) && access(candidate.c_str(), X_OK) == 0) return fs::absolute(candidate, error).string();
  }
  return "";
}

std::optional<std::string> ActivatedEnvironment(const std::string& program, bool warn) {
  const char* variable = std::getenv("VIRTUAL_ENV");
  if (variable == nullptr || *variable == '\0' || LiesInEnvironment(program)) return std::nullopt;
  if (std::string reason = WhyUnusable(variable); !reason.empty()) {
    if (warn) std::fprintf(stderr, "pyhost: warning: VIRTUAL_ENV=%s is ignored: %s\n", variable, reason.c_str());
    return std::nullopt;
  }
  std::error_code error;
  return fs::absolute(variable, error).string();
}

}  // namespace pyhost::host
