// UniqueFd: owns one file descriptor and closes it.  Move-only.

#ifndef PYHOST_RUNTIME_OS_UNIQUE_FD_H_
#define PYHOST_RUNTIME_OS_UNIQUE_FD_H_

#include <unistd.h>

#include <utility>

namespace pyhost {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  ~UniqueFd() { reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1) {
    // A close that is interrupted has closed all the same on Linux.
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
  }

 private:
  int fd_ = -1;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_OS_UNIQUE_FD_H_
