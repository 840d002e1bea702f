#include "runtime/os/guarded_descriptor.h"

#include <sys/stat.h>

#include <utility>

namespace pyhost {

FileIdentity::FileIdentity(int fd) {
  struct stat file = {};
  if (fstat(fd, &file) != 0) return;
  device_ = file.st_dev;
  inode_ = file.st_ino;
}

bool FileIdentity::Is(int fd) const {
  struct stat file = {};
  return fd >= 0 && fstat(fd, &file) == 0 && file.st_dev == device_ && file.st_ino == inode_;
}

GuardedDescriptor::GuardedDescriptor(UniqueFd fd) : fd_(fd.release()), file_(fd_) {}

GuardedDescriptor::GuardedDescriptor(GuardedDescriptor&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), file_(other.file_) {}

GuardedDescriptor& GuardedDescriptor::operator=(GuardedDescriptor&& other) noexcept {
  if (this == &other) return *this;
  Close();
  fd_ = std::exchange(other.fd_, -1);
  file_ = other.file_;
  return *this;
}

GuardedDescriptor::~GuardedDescriptor() { Close(); }

bool GuardedDescriptor::Intact() const { return file_.Is(fd_); }

bool GuardedDescriptor::Restore(UniqueFd fd) {
  if (!file_.Is(fd.get())) return false;
  // The lost number is not ours to close; it may even be the one that the duplicate got.
  fd_ = fd.release();
  return true;
}

void GuardedDescriptor::Close() {
  if (Intact()) ::close(fd_);
  fd_ = -1;
}

}  // namespace pyhost
