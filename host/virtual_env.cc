#include "host/virtual_env.h"

#include <unistd.h>

#include <patchlevel.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <sstream>
#include <string_view>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "host/modules_dir.h"

namespace pyhost::host {
namespace {

namespace fs = std::filesystem;

constexpr char kConfigFile[] = "pyvenv.cfg";

bool IsFile(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

// The configuration of the environment that the program lies in; empty where it lies in none.
fs::path ConfigOf(const fs::path& program) {
  fs::path folder = program.parent_path();
  for (const fs::path& place : {folder, folder.parent_path()}) {
    if (IsFile(place / kConfigFile)) return place / kConfigFile;
  }
  return {};
}

bool LiesInEnvironment(const fs::path& program) { return !ConfigOf(program).empty(); }

std::string Trimmed(const std::string& text) {
  constexpr char kSpace[] = " \t\r";
  size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

// What the configuration says first of one of these keys; empty where it says nothing.
std::string ValueOf(const fs::path& config, std::initializer_list<std::string_view> keys) {
  std::ifstream file(config);
  for (std::string line; std::getline(file, line);) {
    size_t equals = line.find('=');
    if (equals == std::string::npos) continue;
    std::string key = Trimmed(line.substr(0, equals));
    if (std::find(keys.begin(), keys.end(), key) != keys.end()) return Trimmed(line.substr(equals + 1));
  }
  return "";
}

// "3.11" out of the configuration's `version = 3.11.2` (venv) or `version_info = 3.11.2.final.0` (virtualenv);
// empty where it says neither.
std::string VersionOf(const fs::path& config) {
  std::string value = ValueOf(config, {"version", "version_info"});
  size_t minor = value.find('.');
  return minor == std::string::npos ? value : value.substr(0, value.find('.', minor + 1));
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

// Empty where PATH has no such program.
std::string FoundOnPath(const std::string& name) {
  std::error_code error;
  const char* path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    fs::path candidate = fs::path(folder) / name;
    if (IsFile(candidate) && access(candidate.c_str(), X_OK) == 0) return fs::absolute(candidate, error).string();
  }
  return "";
}

}  // namespace

bool NamesAnotherProgram(const std::string& argv0) {
  if (argv0.empty()) return true;
  if (argv0.find('/') != std::string::npos) return false;
  std::error_code error;
  const std::string found = FoundOnPath(argv0);
  return !found.empty() && !fs::equivalent(found, "/proc/self/exe", error) && !error;
}

std::string ProgramPath(const std::string& argv0) {
  std::error_code error;
  if (argv0.find('/') != std::string::npos) return fs::absolute(argv0, error).string();
  return NamesAnotherProgram(argv0) ? RunningProgram() : FoundOnPath(argv0);
}

std::optional<std::string> CopiedFrom(const std::string& program) {
  std::error_code error;
  const fs::path config = ConfigOf(program);
  if (config.empty() || fs::is_symlink(program, error)) return std::nullopt;
  for (const fs::path& original : {fs::path(ValueOf(config, {"executable"})), fs::path(ValueOf(config, {"home"})) / "pyhost"}) {
    if (original.is_absolute() && IsFile(original) && !LiesInEnvironment(original)) return original.string();
  }
  return std::nullopt;
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
