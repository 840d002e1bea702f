// An engine with a Python interpreter in its own process, and pyhost's multiprocessing in that: children are `pyhost`.
//
//   engine_embedded [folder of the scripts]

#include <pyhost/embedded_interpreter.h>

#include <cstdio>
#include <string>
#include <vector>

int main(int argc, char** argv) {
  auto python = pyhost::EmbeddedInterpreter::Start({.python_path = {argc > 1 ? argv[1] : "scripts"}});
  if (!python.ok()) return std::printf("%s\n", python.status().ToString().c_str()), 1;

  const absl::StatusOr<int> answer = (*python)->Call<int>("brain:answer");
  if (!answer.ok()) return std::printf("%s\n", answer.status().ToString().c_str()), 1;
  std::printf("in this process: %d\n", *answer);
  std::fflush(stdout);  // Python has a buffer of its own.

  const absl::Status done = (*python)->Run("import multiprocessing\n"
                                           "with multiprocessing.Pool(2) as pool:\n"
                                           "    print('in two others:', pool.map(abs, [-1, -2, -3]))\n");
  if (!done.ok()) return std::printf("%s\n", done.ToString().c_str()), 1;
  return 0;
}
