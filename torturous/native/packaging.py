"""The parts of a bundle that tell other build systems how to link it."""

from __future__ import annotations

from string import Template

from torturous.native.describe import ABI
from torturous.native.entry import Library

_PC = Template("""\
prefix=$${pcfiledir}
Name: $name
Description: a model as a static library, made by torturous
Version: $abi
Libs: -L$${prefix} -l$name
Cflags: -I$${prefix}
""")

_CMAKE = Template("""\
# find_package($name REQUIRED PATHS <this folder>) gives the target $name::$name.
if(NOT TARGET $name::$name)
  add_library($name::$name STATIC IMPORTED)
  set_target_properties($name::$name PROPERTIES
    IMPORTED_LOCATION "$${CMAKE_CURRENT_LIST_DIR}/lib$name.a"
    INTERFACE_INCLUDE_DIRECTORIES "$${CMAKE_CURRENT_LIST_DIR}")
endif()
""")

_BUILD_RS = Template("""\
// Links lib$name.a, which lies beside this file. Use it as the package's build script, or call it from yours.

fn main() {
    let folder = std::env::var("${upper}_BUNDLE").unwrap_or_else(|_| {
        std::path::Path::new(file!()).parent().unwrap().to_string_lossy().into_owned()
    });
    let folder = std::fs::canonicalize(&folder).expect("the bundle's folder");
    println!("cargo:rerun-if-env-changed=${upper}_BUNDLE");
    println!("cargo:rustc-env=${upper}_BUNDLE={}", folder.display());
    println!("cargo:rerun-if-changed={}", folder.join("lib$name.a").display());
    println!("cargo:rustc-link-search=native={}", folder.display());
    println!("cargo:rustc-link-lib=static=$name");
}
""")


def build_files(library: Library) -> dict[str, str]:
    """What tells pkg-config, CMake and Cargo where the library lies."""
    name = library.name
    common = {"name": name, "upper": name.upper(), "abi": ABI}
    return {f"{name}.pc": _PC.substitute(common), f"{name}Config.cmake": _CMAKE.substitute(common),
            "build.rs": _BUILD_RS.substitute(common)}
