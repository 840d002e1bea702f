// MakeExposed: a C++ callable as a function from pickled arguments to a pickled result.

#ifndef PYHOST_INTERNAL_EXPOSED_H_
#define PYHOST_INTERNAL_EXPOSED_H_

#include <cstddef>
#include <functional>
#include <span>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pyhost/codec.h"
#include "pyhost/internal/core.h"

namespace pyhost::internal {

// What a callable's result is sent as: None for void and absl::Status, T for a StatusOr<T>.
inline absl::StatusOr<EncodedValue> EncodeResult(const absl::Status& status) {
  if (!status.ok()) return status;
  return EncodeValue(std::nullopt);
}
template <typename T>
absl::StatusOr<EncodedValue> EncodeResult(const absl::StatusOr<T>& result) {
  if (!result.ok()) return result.status();
  return EncodeValue(*result);
}
template <typename T>
absl::StatusOr<EncodedValue> EncodeResult(const T& result) {
  return EncodeValue(result);
}

// Views: what they would point to is owned by nobody.
template <typename T>
inline constexpr bool kIsView = std::is_same_v<T, std::string_view> || std::is_pointer_v<T>;
template <typename T, size_t Extent>
inline constexpr bool kIsView<std::span<T, Extent>> = true;

template <typename R, typename... A>
ExposedFunction MakeExposedOf(std::function<R(A...)> function) {
  static_assert(!(kIsView<std::remove_cvref_t<A>> || ...),
                "an exposed function cannot have a std::string_view, a std::span or a pointer as a parameter: nobody would own "
                "what it points to.  Take a std::string, a std::vector or a SharedArray");
  return [function = std::move(function)](std::string_view pickle,
                                          const DecodeContext& context) -> absl::StatusOr<EncodedValue> {
    using Arguments = std::tuple<std::remove_cvref_t<A>...>;
    absl::StatusOr<Arguments> arguments = DecodeValue<Arguments>(pickle, context);
    if (!arguments.ok()) return arguments.status();
    if constexpr (std::is_void_v<R>) {
      std::apply(function, *std::move(arguments));
      return EncodeResult(absl::OkStatus());
    } else {
      return EncodeResult(std::apply(function, *std::move(arguments)));
    }
  };
}

template <typename F>
ExposedFunction MakeExposed(F function) {
  return MakeExposedOf(std::function(std::move(function)));
}

}  // namespace pyhost::internal

#endif  // PYHOST_INTERNAL_EXPOSED_H_
