#include "runtime/base/crash_point.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gtest/gtest.h"
#include "runtime/testing/child.h"

namespace pyhost {
namespace {

using testing::Exited;
using testing::Killed;
using testing::RunInChild;

TEST(CrashPointTest, KillsAtTheNthArrivalAtTheArmedPointOnly) {
  if (!testing::kCrashPointsBuilt) GTEST_SKIP() << "built without crash points";
  const auto pass_thrice = [] {
    for (int i = 0; i < 3; ++i) {
      PYHOST_CRASH_POINT("here");
      PYHOST_CRASH_POINT("there");
    }
  };
  const auto run = [&](const char* name, int nth) {
    return RunInChild([&] {
      testing::KillAtCrashPoint(name, nth);
      pass_thrice();
    });
  };
  EXPECT_EQ(run("here", 1), Killed(SIGKILL));
  EXPECT_EQ(run("there", 3), Killed(SIGKILL));
  EXPECT_EQ(run("there", 4), Exited(0));
  EXPECT_EQ(run("her", 1), Exited(0));
  EXPECT_EQ(RunInChild([&] {
    crash_point::Arm("here");
    crash_point::Disarm();
    pass_thrice();
  }),
            Exited(0));
}

TEST(CrashPointTest, CanStopAProcessUntilItIsContinued) {
  if (!testing::kCrashPointsBuilt) GTEST_SKIP() << "built without crash points";
  const pid_t child = fork();
  if (child == 0) {
    crash_point::Arm("here", 1, SIGSTOP);
    for (int i = 0; i < 3; ++i) PYHOST_CRASH_POINT("here");
    _exit(7);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, WUNTRACED), child);
  EXPECT_TRUE(WIFSTOPPED(status));
  kill(child, SIGCONT);
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 7) << "stopped once";
}

}  // namespace
}  // namespace pyhost
