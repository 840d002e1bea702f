#include "runtime/os/cgroup.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "gtest/gtest.h"

namespace pyhost {
namespace {

// A machine's /proc and /sys in a folder of the test's.
class CgroupTest : public ::testing::Test {
 protected:
  CgroupTest() {
    char name[] = "/tmp/pyhost-cgroup-test-XXXXXX";
    root_ = mkdtemp(name);
  }
  ~CgroupTest() override { std::filesystem::remove_all(root_); }
  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_ + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  std::string root_;
};

TEST_F(CgroupTest, NoFilesNoLimits) {
  EXPECT_FALSE(CgroupMemoryLimit(root_));
  EXPECT_FALSE(CgroupCpuLimit(root_));
}

TEST_F(CgroupTest, TightestOfVersion2UpTheTreeCounts) {
  Write("/proc/self/cgroup", "0::/a/b/c\n");
  Write("/sys/fs/cgroup/a/memory.max", "1000000\n");
  Write("/sys/fs/cgroup/a/b/memory.max", "max\n");
  Write("/sys/fs/cgroup/a/b/c/memory.max", "2000000\n");
  Write("/sys/fs/cgroup/a/b/c/cpu.max", "max 100000\n");
  Write("/sys/fs/cgroup/a/b/cpu.max", "150000 100000\n");
  EXPECT_EQ(CgroupMemoryLimit(root_), 1000000u);
  EXPECT_EQ(CgroupCpuLimit(root_), 1.5);
}

TEST_F(CgroupTest, ContainerSeesItsGroupAsTheMountItself) {
  Write("/proc/self/cgroup", "0::/../../docker/abc\n");
  Write("/sys/fs/cgroup/memory.max", "67108864\n");
  EXPECT_EQ(CgroupMemoryLimit(root_), 64u << 20);
}

TEST_F(CgroupTest, Version1HasAHierarchyPerController) {
  Write("/proc/self/cgroup", "7:memory:/job\n3:cpu,cpuacct:/job\n1:name=systemd:/\n");
  Write("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "5000000\n");
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "50000\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
  Write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  Write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(CgroupMemoryLimit(root_), 5000000u);
  EXPECT_EQ(CgroupCpuLimit(root_), 0.5);
}

TEST_F(CgroupTest, NonsenseDoesNotLimit) {
  Write("/proc/self/cgroup", "nonsense\n0::\n::\n");
  Write("/sys/fs/cgroup/memory.max", "lots\n");
  Write("/sys/fs/cgroup/cpu.max", "1 0\n");
  EXPECT_FALSE(CgroupMemoryLimit(root_));
  EXPECT_FALSE(CgroupCpuLimit(root_));
}

}  // namespace
}  // namespace pyhost
