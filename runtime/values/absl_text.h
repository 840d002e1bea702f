// AbslText: a std::string_view for Abseil's functions.  Debian's Abseil of 2022 is built for C++14, where its string_view is
// a class of its own; elsewhere the two are one.

#ifndef PYHOST_RUNTIME_VALUES_ABSL_TEXT_H_
#define PYHOST_RUNTIME_VALUES_ABSL_TEXT_H_

#include <string_view>

#include "absl/strings/string_view.h"

namespace pyhost {

inline absl::string_view AbslText(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_VALUES_ABSL_TEXT_H_
