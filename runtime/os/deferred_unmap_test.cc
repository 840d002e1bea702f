// A process whose memory is given back after its end: what its parent sees of both.

#include "runtime/os/deferred_unmap.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/testing/child.h"

namespace pyhost {
namespace {

using testing::Exited;
using testing::RunInChild;

constexpr int kDeferred = 40, kNotDeferred = 41;

// Ends the way `bytes` of memory let it.
[[noreturn]] void EndWith(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) _exit(1);
  std::memset(memory, 1, bytes);
  _exit(DeferUnmap() ? kDeferred : kNotDeferred);
}

// In a process that has no other children.
void ExpectEnds(size_t bytes, int exit_code, std::vector<int> others) {
  int pipe_ends[2];
  ASSERT_EQ(pipe2(pipe_ends, O_NONBLOCK), 0);
  const pid_t pid = fork();
  if (pid == 0) EndWith(bytes);
  close(pipe_ends[1]);
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(WEXITSTATUS(status), exit_code);
  char byte;
  EXPECT_EQ(read(pipe_ends[0], &byte, 1), 0) << "its descriptors are closed";
  std::vector<int> seen;
  while (waitpid(-1, &status, 0) > 0) seen.push_back(status);
  EXPECT_EQ(errno, ECHILD);
  EXPECT_EQ(seen, others);
}

// False with the memory of a sanitizer, or where the system refuses.
bool CanBeDeferred() {
  return RunInChild([] {
           const pid_t pid = fork();
           if (pid == 0) EndWith(1 << 20);
           int status = 0;
           waitpid(pid, &status, 0);
           while (waitpid(-1, nullptr, 0) > 0) {
           }
           _exit(WEXITSTATUS(status));
         }) == Exited(kDeferred);
}

TEST(DeferredUnmapTest, SmallProcessIsOutlivedByOneThatOnlyHasItsMemory) {
  if (!CanBeDeferred()) GTEST_SKIP() << "not deferred here";
  EXPECT_EQ(RunInChild([] {
    for (int i = 0; i < 50; ++i) ExpectEnds(1 << 20, kDeferred, {0});
  }),
            Exited(0));
}

TEST(DeferredUnmapTest, LargeProcessGivesItsMemoryBackItself) {
  EXPECT_EQ(RunInChild([] { ExpectEnds(kMostDeferred + (1 << 20), kNotDeferred, {}); }), Exited(0));
}

}  // namespace
}  // namespace pyhost
