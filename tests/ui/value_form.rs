//! Definitions that cannot travel say why.
mitogen::value! { //~ a value owns what it carries: no lifetimes
    struct Borrowed<'a> { text: &'a str }
}
mitogen::value! { //~ no lifetimes in `mitogen::value!`
    enum AlsoBorrowed<'a, T> { Text(&'a str, T) }
}
mitogen::value! { //~ a type parameter in `mitogen::value!` is a bare name
    struct Bounded<T: Clone> { value: T }
}
mitogen::value! { //~ no other bound is possible
    enum Counted<const N: usize> { Value([u8; N]) }
}
mitogen::value! { //~ `Decode` is added
    struct Where<T> where T: Clone { value: T }
}
mitogen::value! { //~ an enum without variants has no value that could be sent
    enum Empty {}
}
mitogen::value! { //~ at most eight fields: name them
    struct Nine(u8, u8, u8, u8, u8, u8, u8, u8, u8);
}
mitogen::value! { //~ at most eight fields
    enum AlsoNine { Nine(u8, u8, u8, u8, u8, u8, u8, u8, u8) }
}
//~ aborting due to 8 previous errors
