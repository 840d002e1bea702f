#include "runtime/engine/program.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

// Set by meson: where `meson install` puts the program.
#if !defined(PYHOST_INSTALLED_PROGRAM) || !defined(PYHOST_VERSION)
#error "build with meson: it says where the program is installed, and its version"
#endif

namespace pyhost {
namespace {

namespace fs = std::filesystem;

bool IsProgram(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error) && access(path.c_str(), X_OK) == 0;
}

// The folder of the file that this code was loaded from: the shared library, or the engine itself.
fs::path OwnFolder() {
  Dl_info info = {};
  std::error_code error;
  if (dladdr(reinterpret_cast<const void*>(&FindProgram), &info) == 0 || info.dli_fname == nullptr) return {};
  fs::path file = info.dli_fname;
  // The engine's own name is as it was called.
  if (!file.is_absolute() || !fs::exists(file, error)) file = "/proc/self/exe";
  file = fs::canonical(file, error);
  return error ? fs::path() : file.parent_path();
}

std::vector<fs::path> Candidates() {
  std::vector<fs::path> places;
  if (const fs::path folder = OwnFolder(); !folder.empty()) {
    for (const char* way : {"pyhost", "../bin/pyhost", "../../bin/pyhost", "../host/pyhost", "../../host/pyhost"}) {
      places.push_back((folder / way).lexically_normal());
    }
  }
  places.emplace_back(PYHOST_INSTALLED_PROGRAM);
  const char* path = std::getenv("PATH");
  for (absl::string_view folder : absl::StrSplit(path == nullptr ? "" : path, ':', absl::SkipEmpty())) {
    places.push_back(fs::path(std::string(folder)) / "pyhost");
  }
  return places;
}

absl::StatusOr<std::string> Chosen(const std::string& path, const char* chooser) {
  std::error_code error;
  if (IsProgram(path)) return fs::absolute(path, error).string();
  return absl::NotFoundError(absl::StrCat("the program pyhost is missing: ", chooser, " names '", path,
                                          "', which is no executable file"));
}

}  // namespace

absl::StatusOr<std::string> FindProgram(const std::string& wish) {
  if (!wish.empty()) return Chosen(wish, "Options::program");
  if (const char* variable = std::getenv("PYHOST_PROGRAM"); variable != nullptr && *variable != '\0') {
    return Chosen(variable, "the environment variable PYHOST_PROGRAM");
  }
  const std::vector<fs::path> places = Candidates();
  for (const fs::path& place : places) {
    if (IsProgram(place)) return place.string();
  }
  return absl::NotFoundError(absl::StrCat(
      "the program pyhost is missing; looked at: ",
      absl::StrJoin(places, ", ", [](std::string* out, const fs::path& place) { out->append(place.string()); }),
      ".  Install it (`meson install`), or name it with Options::program or PYHOST_PROGRAM"));
}

std::string EngineVersion() { return PYHOST_VERSION; }

}  // namespace pyhost
