// ScriptsFolder: a temporary copy of the scripts, so that a run can change them.  Gone with the object.

#ifndef PYHOST_EXAMPLES_ENGINE_FLOCK_SCRIPTS_FOLDER_H_
#define PYHOST_EXAMPLES_ENGINE_FLOCK_SCRIPTS_FOLDER_H_

#include <stdlib.h>

#include <filesystem>
#include <string>
#include <system_error>

namespace flock {

class ScriptsFolder {
 public:
  // Throws std::filesystem::filesystem_error, which names the file.
  explicit ScriptsFolder(const std::filesystem::path& from) {
    std::string name = (std::filesystem::temp_directory_path() / "flock-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr)
      throw std::filesystem::filesystem_error("mkdtemp", name, std::error_code(errno, std::generic_category()));
    path_ = name;
    for (const auto& entry : std::filesystem::directory_iterator(from)) {
      if (entry.path().extension() == ".py") std::filesystem::copy_file(entry.path(), path_ / entry.path().filename());
    }
  }
  ~ScriptsFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScriptsFolder(const ScriptsFolder&) = delete;
  ScriptsFolder& operator=(const ScriptsFolder&) = delete;

  std::string path() const { return path_.string(); }
  // Somebody saved the mended version over the one that fails.
  void MendWander() {
    std::filesystem::copy_file(path_ / "wander_mended.py", path_ / "wander.py",
                               std::filesystem::copy_options::overwrite_existing);
  }

 private:
  std::filesystem::path path_;
};

}  // namespace flock

#endif  // PYHOST_EXAMPLES_ENGINE_FLOCK_SCRIPTS_FOLDER_H_
