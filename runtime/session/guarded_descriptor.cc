#include "runtime/session/guarded_descriptor.h"

#include <sys/stat.h>

#include <utility>

namespace pyhost {

GuardedDescriptor::GuardedDescriptor(UniqueFd fd) : fd_(fd.release()), first_number_(fd_) {
  struct stat file = {};
  if (fstat(fd_, &file) != 0) return;
  device_ = file.st_dev;
  inode_ = file.st_ino;
}

GuardedDescriptor::GuardedDescriptor(GuardedDescriptor&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      first_number_(other.first_number_),
      device_(other.device_),
      inode_(other.inode_) {}

GuardedDescriptor& GuardedDescriptor::operator=(GuardedDescriptor&& other) noexcept {
  if (this == &other) return *this;
  Close();
  fd_ = std::exchange(other.fd_, -1);
  first_number_ = other.first_number_;
  device_ = other.device_;
  inode_ = other.inode_;
  return *this;
}

GuardedDescriptor::~GuardedDescriptor() { Close(); }

bool GuardedDescriptor::IsSameFile(int fd) const {
  struct stat file = {};
  return fd >= 0 && fstat(fd, &file) == 0 && file.st_dev == device_ && file.st_ino == inode_;
}

bool GuardedDescriptor::Intact() const { return IsSameFile(fd_); }

bool GuardedDescriptor::Restore(UniqueFd fd) {
  if (!IsSameFile(fd.get())) return false;
  // The lost number is not ours to close; it may even be the one that the duplicate got.
  fd_ = fd.release();
  return true;
}

void GuardedDescriptor::Close() {
  if (Intact()) ::close(fd_);
  fd_ = -1;
}

}  // namespace pyhost
