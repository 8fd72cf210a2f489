//! A field that cannot travel is one error, at its type.
struct Mine;
mitogen::value! {
    pub struct Open { name: String, file: std::fs::File } //~ `File` cannot arrive from another
}
mitogen::value! {
    struct Pair(u8, Vec<Mine>); //~ `Mine` cannot arrive from another context
}
mitogen::value! {
    enum Event { Started, Two(u8, *const u8), Done { code: &'static str } } //~ `*const u8` cannot
    //~ `&'static str` cannot arrive from another context
}
//~ aborting due to 4 previous errors
