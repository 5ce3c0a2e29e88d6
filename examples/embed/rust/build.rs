// The bundle brings its own build script; NET_BUNDLE is the folder it lies in.
include!(concat!(env!("NET_BUNDLE"), "/build.rs"));
