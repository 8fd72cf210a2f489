//! Which image goes where, and in which form.

use std::os::fd::AsFd;

use crate::error::ConnectFailure;
use crate::module::content::{Content, Parcel};
use crate::module::image::Image;
use crate::module::images::{Found, Outcome, Source, Want};
use crate::module::pack;
use crate::module::source::{Given, Own};
use crate::module::target;
use crate::sys::fd;

const OTHER: &str = "plan9-vax";

fn images(given: Vec<Image>, own: Own) -> Given {
    Given::new(given, own)
}

fn want(target: &str, gzip: bool) -> Want {
    Want { target: target.to_owned(), gzip }
}

/// What is sent of these images.
fn outcome(images: &Given, target: &str, gzip: bool, same_root: bool) -> Outcome {
    match images.find(&want(target, gzip), same_root) {
        Found::Known(outcome) => outcome,
        Found::ToMake(make) => make(),
        Found::ToAsk => panic!("nobody is to be asked"),
    }
}

fn all_owns() -> [Own; 3] {
    [Own::Unknown, Own::Entered, Own::Test(vec![c"--exact".into()])]
}

/// What `gzip` makes of it.
fn packed(bytes: &'static [u8]) -> &'static [u8] {
    let packed = pack::make(&Content::Static(bytes), OTHER, false, true).unwrap();
    assert!(packed.gzipped);
    packed.content.to_vec().unwrap().leak()
}

fn plain_of(parcel: Parcel) -> Vec<u8> {
    pack::make(&parcel.content, OTHER, parcel.gzipped, false).unwrap().content.to_vec().unwrap()
}

/// What is sent to targets with and without gzip, as what it is before it is compressed.
#[track_caller]
fn sends(images: &Given, target: &str, same_root: bool, expected: &[u8]) {
    for gzip in [true, false] {
        let parcel = outcome(images, target, gzip, same_root).unwrap();
        assert_eq!(parcel.gzipped, gzip);
        assert!(plain_of(parcel) == expected);
    }
}

#[track_caller]
fn is_unusable(images: &Given, target: &str, same_root: bool, says: &str) {
    for gzip in [true, false] {
        match outcome(images, target, gzip, same_root).map(drop) {
            Err(ConnectFailure::ImageUnusable(why)) => assert!(why.contains(says), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

#[track_caller]
fn is_none(images: &Given, target: &str, there: &str) {
    for (gzip, same_root) in [(true, true), (true, false), (false, true), (false, false)] {
        let failure = outcome(images, target, gzip, same_root).map(drop).unwrap_err();
        let (target, available) = (target.to_owned(), there.to_owned());
        assert_eq!(failure, ConnectFailure::NoImage { target, available });
    }
}

#[test]
fn of_two_images_the_one_is_sent_that_serves_as_it_is() {
    let (plain, packed) = (&b"plain"[..], &b"\x1f\x8bpacked"[..]);
    for both in [[plain, packed], [packed, plain]] {
        let given = both.map(|bytes| Image::embedded(OTHER, bytes)).to_vec();
        let images = images(given, Own::Entered);
        for (gzip, expected) in [(true, packed), (false, plain)] {
            let parcel = outcome(&images, OTHER, gzip, false).unwrap();
            assert_eq!((&parcel.content.to_vec().unwrap()[..], parcel.gzipped), (expected, gzip));
        }
    }
}

#[test]
fn the_own_executable_is_sent_without_what_nobody_executes() {
    let own = std::fs::read("/proc/self/exe").unwrap();
    let images = images(Vec::new(), Own::Entered);
    sends(&images, &target::own(), true, &crate::minimize_image(&own).unwrap());
}

#[test]
fn what_is_missing_names_each_target_once() {
    let image = |target| Image::embedded(target, b"");
    let given = vec![image("linux-arm"), image("linux-x86"), image("linux-armv7")];
    is_none(&images(given, Own::Entered), "linux-s390x", "linux-arm linux-x86");
}

#[test]
fn a_given_image_goes_to_its_target_whatever_this_program_is() {
    for own in all_owns() {
        let given = vec![
            Image::embedded(OTHER, b"plain"),
            Image::embedded("linux-pdp11", packed(b"compressed")),
        ];
        let images = images(given, own);
        for same_root in [true, false] {
            sends(&images, OTHER, same_root, b"plain");
            sends(&images, "linux-pdp11", same_root, b"compressed");
        }
        is_none(&images, "linux-m68k", "plan9-vax linux-pdp11");
    }
}

#[test]
fn given_images_stand_in_for_the_own_executable_unless_it_is_among_them() {
    for own in all_owns() {
        let images = images(vec![Image::embedded(OTHER, b"x")], own);
        is_none(&images, &target::own(), OTHER);
    }
    let images = images(vec![Image::own(), Image::embedded(OTHER, b"x")], Own::Entered);
    sends(&images, OTHER, false, b"x");
    assert!(outcome(&images, &target::own(), false, true).is_ok());
    is_none(&images, "linux-m68k", &[&target::own(), " ", OTHER].concat());
    let launch = images.launch(argv()).map_err(|failure| failure.to_string()).unwrap();
    let own = fd::open_self_exe().unwrap();
    assert_eq!(fd::file_bytes(launch.file.as_fd()), fd::file_bytes(own.as_fd()));
}

#[test]
fn a_dynamic_image_goes_only_where_the_files_are_the_same() {
    let image = Image::file("/proc/self/exe").unwrap();
    let (dynamic, bytes) = (image.dynamic, image.content.to_vec().unwrap());
    assert_eq!(dynamic, !cfg!(target_feature = "crt-static"));
    for images in [images(vec![image], Own::Unknown), images(Vec::new(), Own::Entered)] {
        sends(&images, &target::own(), true, &bytes);
        match dynamic {
            true => is_unusable(&images, &target::own(), false, "crt-static"),
            false => sends(&images, &target::own(), false, &bytes),
        }
    }
}

#[test]
fn without_an_image_the_way_to_one_is_told() {
    for same_root in [true, false] {
        let unknown = images(Vec::new(), Own::Unknown);
        is_unusable(&unknown, &target::own(), same_root, "Program::run");
        let test = images(Vec::new(), Own::Test(Vec::new()));
        is_unusable(&test, &target::own(), same_root, "CARGO_BIN_EXE");
    }
    for (own, there) in all_owns().into_iter().zip(["", &target::own(), ""]) {
        is_none(&images(Vec::new(), own), OTHER, there);
    }
    let unknown = images(Vec::new(), Own::Unknown).launch(argv()).map(drop);
    assert!(matches!(unknown, Err(ConnectFailure::ImageUnusable(_))), "{unknown:?}");
}

/// An agent's.
fn argv() -> Vec<Vec<u8>> {
    ["mitogen", "mitogen-agent-7", "title"].map(|word| word.as_bytes().to_vec()).to_vec()
}

#[test]
fn what_is_launched_here_is_the_given_image_or_the_own_executable() {
    let target = target::own();
    let head: &[u8] = std::fs::read("/proc/self/exe").unwrap()[..64].to_vec().leak();
    for bytes in [head, packed(head)] {
        let images = images(vec![Image::embedded(&target, bytes)], Own::Entered);
        let launch = images.launch(argv()).map_err(|failure| failure.to_string()).unwrap();
        fd::rewind(launch.file.as_fd()).unwrap();
        assert_eq!(fd::read_to_end(launch.file.as_fd(), 100).unwrap(), head);
        assert_eq!((launch.argv, launch.env), (argv(), Vec::new()));
        let again = images.launch(argv()).map_err(|failure| failure.to_string()).unwrap();
        assert!(std::sync::Arc::ptr_eq(&launch.file, &again.file));
    }
    let own = images(Vec::new(), Own::Test(vec![c"--exact".to_owned()]));
    let launch = own.launch(argv()).map_err(|failure| failure.to_string()).unwrap();
    assert_eq!(launch.argv, [b"mitogen", &b"--exact"[..]]);
    assert_eq!(launch.env, [b"MITOGEN_TEST_AGENT=mitogen-agent-7"]);
}
