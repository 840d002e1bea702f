#include "host/stdin_program.h"

#include "modules/native/python_ref.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "runtime/os/unique_fd.h"

namespace pyhost::host {
namespace {

using native::PyRef;

constexpr size_t kPiece = 64 * 1024;

// "" or "-", as long as the main job has not begun.
bool NamesStdin() {
  PyObject* argv = PySys_GetObject("argv");  // borrowed
  if (argv == nullptr || !PyList_Check(argv) || PyList_GET_SIZE(argv) == 0) return false;
  const char* first = PyUnicode_AsUTF8(PyList_GET_ITEM(argv, 0));
  if (first == nullptr) PyErr_Clear();
  return first != nullptr && (std::string_view(first).empty() || std::string_view(first) == "-");
}

// -i makes a prompt of whatever standard input is.
bool IsInteractive() {
  PyObject* flags = PySys_GetObject("flags");  // borrowed
  PyRef value = PyRef::Steal(flags == nullptr ? nullptr : PyObject_GetAttrString(flags, "interactive"));
  bool interactive = !value || PyObject_IsTrue(value.get()) != 0;
  PyErr_Clear();
  return interactive;
}

bool IsPipe(int fd) {
  struct stat status = {};
  return fstat(fd, &status) == 0 && (S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode));
}

// Ctrl-C while the program was still being read, as python3 leaves then.
[[noreturn]] void LeaveInterrupted() {
  PyErr_Print();
  signal(SIGINT, SIG_DFL);
  raise(SIGINT);
  _exit(128 + SIGINT);
}

// Half a program must not run.
[[noreturn]] void LeaveWithoutMemory() {
  std::fprintf(stderr, "pyhost: keeping the program from standard input in memory: %s\n", std::strerror(errno));
  _exit(1);
}

// False where nothing more can be read.
bool CopyPiece(int from, int to, bool* end) {
  static char buffer[kPiece];
  ssize_t size = read(from, buffer, sizeof(buffer));
  if (size < 0 && errno == EINTR) {
    if (PyErr_CheckSignals() < 0) LeaveInterrupted();
    return true;
  }
  *end = size == 0;
  for (ssize_t done = 0; done < size;) {
    ssize_t written = write(to, buffer + done, static_cast<size_t>(size - done));
    if (written < 0) LeaveWithoutMemory();
    done += written;
  }
  return size >= 0;
}

}  // namespace

void KeepProgramFromPipe() {
  if (!IsPipe(STDIN_FILENO) || !NamesStdin() || IsInteractive()) return;
  UniqueFd kept(memfd_create("pyhost-program", MFD_CLOEXEC));
  if (!kept.valid()) return;
  for (bool end = false; !end;) {
    if (!CopyPiece(STDIN_FILENO, kept.get(), &end)) break;
  }
  // Whatever was read is the program now; after a failed read Python meets the same end.
  if (lseek(kept.get(), 0, SEEK_SET) == 0) dup2(kept.get(), STDIN_FILENO);
}

}  // namespace pyhost::host
