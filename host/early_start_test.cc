// Which scripts have their servers launched early.

#include "host/early_start.h"

#include <gtest/gtest.h>

namespace pyhost::host {
namespace {

TEST(EarlyStartTest, ScriptsThatCallWhatStartsProcesses) {
  EXPECT_TRUE(WillStartProcesses("from multiprocessing import Pool\nwith Pool(2) as pool: pass\n"));
  EXPECT_TRUE(WillStartProcesses("import multiprocessing as mp\nmp.Process(target=f).start()\n"));
  EXPECT_TRUE(WillStartProcesses("import concurrent.futures as cf\ncf.ProcessPoolExecutor()\n"));
}

TEST(EarlyStartTest, OthersCostNothing) {
  EXPECT_FALSE(WillStartProcesses(""));
  EXPECT_FALSE(WillStartProcesses("print('hello')\n"));
  EXPECT_FALSE(WillStartProcesses("import multiprocessing\nprint(multiprocessing.cpu_count())\n"));
  EXPECT_FALSE(WillStartProcesses("from multiprocessing.pool import ThreadPool\nThreadPool(2)\n"));
  EXPECT_FALSE(WillStartProcesses("from concurrent.futures import ThreadPoolExecutor\nThreadPoolExecutor(2)\n"));
  EXPECT_FALSE(WillStartProcesses("class Pool: pass\nPool()\n"));
}

TEST(EarlyStartTest, TheServerIsForTheMethodSpawn) {
  EXPECT_FALSE(WillStartProcesses("import multiprocessing as mp\nmp.set_start_method('fork')\nmp.Pool(2)\n"));
  EXPECT_FALSE(WillStartProcesses("import multiprocessing as mp\nmp.get_context(\"forkserver\").Pool(2)\n"));
}

}  // namespace
}  // namespace pyhost::host
