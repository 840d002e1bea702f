#include "runtime/os/cgroup.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "runtime/os/text_file.h"

namespace pyhost {
namespace {

struct Group {
  bool v2 = false;
  std::string mount;  // /sys/fs/cgroup, or the controller's folder below it
  std::string path;   // of the group in that hierarchy, "/" or "/a/b"
};

// Lines of /proc/self/cgroup are "<number>:<controllers>:<path>"; v2 has number 0 and no controllers.
std::vector<Group> GroupsOf(const std::string& root, absl::string_view controller) {
  std::vector<Group> groups;
  const auto text = ReadTextFile(root + "/proc/self/cgroup");
  if (!text.ok()) return groups;
  for (absl::string_view line : absl::StrSplit(*text, '\n', absl::SkipEmpty())) {
    const std::vector<std::string> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    const std::string base = root + "/sys/fs/cgroup";
    if (fields[0] == "0" && fields[1].empty()) {
      groups.push_back({true, base, fields[2]});
      groups.push_back({true, base + "/unified", fields[2]});
      continue;
    }
    const std::vector<std::string> controllers = absl::StrSplit(fields[1], ',');
    if (std::find(controllers.begin(), controllers.end(), controller) == controllers.end()) continue;
    groups.push_back({false, absl::StrCat(base, "/", controller), fields[2]});
    groups.push_back({false, absl::StrCat(base, "/", fields[1]), fields[2]});
  }
  return groups;
}

// The folders of the group and of all above it.  In a container the path may name a group that is not
// visible there; the mount itself then is the container's group.
std::vector<std::string> FoldersUpTheTree(const Group& group) {
  std::vector<std::string> folders;
  std::string path = group.path == "/" ? "" : group.path;
  while (!path.empty()) {
    if (!absl::StrContains(path, "..")) folders.push_back(group.mount + path);
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
  folders.push_back(group.mount);
  return folders;
}

template <typename T>
std::optional<T> Tightest(const std::string& root, absl::string_view controller,
                          const std::function<std::optional<T>(const Group&, const std::string&)>& read) {
  std::optional<T> tightest;
  for (const Group& group : GroupsOf(root, controller)) {
    for (const std::string& folder : FoldersUpTheTree(group)) {
      const std::optional<T> limit = read(group, folder);
      if (limit && (!tightest || *limit < *tightest)) tightest = limit;
    }
  }
  return tightest;
}

template <typename T>
std::optional<T> ReadNumber(const std::string& path) {
  const auto text = ReadTextFile(path);
  T number;
  if (!text.ok() || !absl::SimpleAtoi(absl::StripAsciiWhitespace(*text), &number)) return std::nullopt;
  return number;
}

std::optional<uint64_t> MemoryLimitIn(const Group& group, const std::string& folder) {
  // "max" (v2) is no number; v1 writes a number near 2^63 for "none".
  constexpr uint64_t kUnlimited = uint64_t{1} << 60;
  const auto limit =
      ReadNumber<uint64_t>(folder + (group.v2 ? "/memory.max" : "/memory.limit_in_bytes"));
  if (!limit || *limit >= kUnlimited) return std::nullopt;
  return limit;
}

std::optional<double> CpuShare(std::optional<int64_t> quota, std::optional<int64_t> period) {
  if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
  return static_cast<double>(*quota) / static_cast<double>(*period);
}

std::optional<double> CpuLimitIn(const Group& group, const std::string& folder) {
  if (!group.v2) {
    return CpuShare(ReadNumber<int64_t>(folder + "/cpu.cfs_quota_us"),
                    ReadNumber<int64_t>(folder + "/cpu.cfs_period_us"));
  }
  const auto text = ReadTextFile(folder + "/cpu.max");  // "150000 100000" or "max 100000"
  if (!text.ok()) return std::nullopt;
  const std::vector<std::string> fields =
      absl::StrSplit(absl::StripAsciiWhitespace(*text), ' ', absl::SkipEmpty());
  int64_t quota = 0;
  int64_t period = 0;
  if (fields.size() != 2 || !absl::SimpleAtoi(fields[0], &quota) || !absl::SimpleAtoi(fields[1], &period)) {
    return std::nullopt;
  }
  return CpuShare(quota, period);
}

}  // namespace

std::optional<uint64_t> CgroupMemoryLimit(const std::string& root) {
  return Tightest<uint64_t>(root, "memory", MemoryLimitIn);
}

std::optional<double> CgroupCpuLimit(const std::string& root) {
  return Tightest<double>(root, "cpu", CpuLimitIn);
}

}  // namespace pyhost
