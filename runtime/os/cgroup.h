// The limits that cgroups (v1 and v2) put on this process: its own group's and those of all groups above,
// the tightest counts.
//
// `root` is where the files are found ("" = the machine's own); tests give a folder of theirs.
// Thread-safe.  What cannot be read does not limit.

#ifndef PYHOST_RUNTIME_OS_CGROUP_H_
#define PYHOST_RUNTIME_OS_CGROUP_H_

#include <cstdint>
#include <optional>
#include <string>

namespace pyhost {

// memory.max (v2), memory.limit_in_bytes (v1).
std::optional<uint64_t> CgroupMemoryLimit(const std::string& root = "");

// Processors: cpu.max (v2), cpu.cfs_quota_us / cpu.cfs_period_us (v1).
std::optional<double> CgroupCpuLimit(const std::string& root = "");

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_OS_CGROUP_H_
