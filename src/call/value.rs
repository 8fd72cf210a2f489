//! `value!`: the definitions of types that travel, written as usual.

/// Defines structs and enums that can be sent to other contexts, and returned by functions.
///
/// Write the definitions as usual, several if you like, with attributes, documentation and
/// visibility. The macro adds [`Encode`](crate::Encode), [`Decode`](crate::Decode) and
/// [`Reply`](crate::function::Reply); every field must have them already. A type may contain
/// itself, in a `Vec` or a `Box`.
///
/// ```
/// mitogen::value! {
///     /// What was found.
///     #[derive(Debug, Clone, PartialEq)]
///     pub struct Usage { /** Where. */ pub path: String, pub bytes: u64 }
///     struct Meters(u32);
///     enum Event<T> { Started, Line(String), Other { code: u32, with: T } }
/// }
/// # fn main() {
/// let usage = Usage { path: "/var".into(), bytes: 4096 };
/// # let _ = (usage, Meters(1).0, Event::<u8>::Started, Event::<u8>::Line("".into()));
/// # let _ = Event::Other { code: 1, with: 2u32 };
/// # }
/// ```
///
/// A value owns what it carries, so there are no lifetimes. Type parameters are bare names: each
/// gets the bound `Decode`. A tuple has at most eight fields, and no field has a `#[cfg]`. A
/// variant is sent as its position, whatever its discriminant is.
///
/// Both ends must have the same definition. What counts is the order, names and types of fields
/// and variants; the type's own name and place may differ.
#[macro_export]
macro_rules! value {
    () => {};
    ($(#[$attr:meta])* $vis:vis struct $name:ident $(<$($g:ident),+ $(,)?>)? {
        $($(#[$field_attr:meta])* $field_vis:vis $field:ident: $t:ty),* $(,)?
    } $($rest:tt)*) => {
        $(#[$attr])* $vis struct $name $(<$($g),+>)? {
            $($(#[$field_attr])* $field_vis $field: $t,)*
        }
        $crate::__value_impls! { struct $name [$($($g)+)?] { $($field: $t),* } }
        $crate::value! { $($rest)* }
    };
    ($(#[$attr:meta])* $vis:vis struct $name:ident $(<$($g:ident),+ $(,)?>)? (
        $($(#[$field_attr:meta])* $field_vis:vis $t:ty),* $(,)?
    ); $($rest:tt)*) => {
        $(#[$attr])* $vis struct $name $(<$($g),+>)? (
            $($(#[$field_attr])* $field_vis $t,)*
        );
        $crate::__value_impls! { struct $name [$($($g)+)?] ( $($t),* ) }
        $crate::value! { $($rest)* }
    };
    ($(#[$attr:meta])* $vis:vis struct $name:ident; $($rest:tt)*) => {
        $(#[$attr])* $vis struct $name;
        $crate::__value_impls! { struct $name [] {} }
        $crate::value! { $($rest)* }
    };
    ($(#[$attr:meta])* $vis:vis enum $name:ident $(<$($g:ident),+ $(,)?>)? {} $($rest:tt)*) => {
        ::core::compile_error!("an enum without variants has no value that could be sent");
    };
    ($(#[$attr:meta])* $vis:vis enum $name:ident $(<$($g:ident),+ $(,)?>)? {
        $($(#[$variant_attr:meta])* $variant:ident
            $({ $($(#[$field_attr:meta])* $field:ident: $t:ty),* $(,)? })?
            $(( $($(#[$item_attr:meta])* $item:ty),* $(,)? ))?
            $(= $discriminant:expr)?
        ),+ $(,)?
    } $($rest:tt)*) => {
        $(#[$attr])* $vis enum $name $(<$($g),+>)? {
            $($(#[$variant_attr])* $variant
                $({ $($(#[$field_attr])* $field: $t),* })?
                $(( $($(#[$item_attr])* $item),* ))?
                $(= $discriminant)?
            ),+
        }
        $crate::__value_impls! { enum $name [$($($g)+)?]
            $($variant [ $({ $($field: $t),* })? $(( $($item),* ))? ])+
        }
        $crate::value! { $($rest)* }
    };
    ($(#[$attr:meta])* $vis:vis struct $name:ident < $lifetime:lifetime $($rest:tt)*) => {
        ::core::compile_error!("a value owns what it carries: no lifetimes in `mitogen::value!`");
    };
    ($(#[$attr:meta])* $vis:vis enum $name:ident < $lifetime:lifetime $($rest:tt)*) => {
        ::core::compile_error!("a value owns what it carries: no lifetimes in `mitogen::value!`");
    };
    ($(#[$attr:meta])* $vis:vis struct $name:ident < const $($rest:tt)*) => {
        $crate::__value_fields! { bounds }
    };
    ($(#[$attr:meta])* $vis:vis enum $name:ident < const $($rest:tt)*) => {
        $crate::__value_fields! { bounds }
    };
    ($(#[$attr:meta])* $vis:vis struct $name:ident < $($g:ident),+ : $($rest:tt)*) => {
        $crate::__value_fields! { bounds }
    };
    ($(#[$attr:meta])* $vis:vis enum $name:ident < $($g:ident),+ : $($rest:tt)*) => {
        $crate::__value_fields! { bounds }
    };
    ($(#[$attr:meta])* $vis:vis struct $name:ident $(<$($g:ident),+>)? where $($rest:tt)*) => {
        $crate::__value_fields! { bounds }
    };
    ($(#[$attr:meta])* $vis:vis enum $name:ident $(<$($g:ident),+>)? where $($rest:tt)*) => {
        $crate::__value_fields! { bounds }
    };
}

/// The impls of one definition. The names for the fields of a tuple are born here, once, and
/// handed to both the pattern and the expression: two births would not see each other.
#[doc(hidden)]
#[macro_export]
macro_rules! __value_impls {
    (struct $name:ident [$($g:ident)*] $fields:tt) => {
        #[automatically_derived]
        #[allow(unused_variables)]
        impl<$($g: $crate::Decode),*> $crate::Encode for $name<$($g),*> {
            fn encode(&self, w: &mut $crate::__private::Writer<'_>) {
                let $crate::__value_fields!(pattern [Self] [a b c e f g h i] $fields) = self;
                $crate::__value_fields!(put [w] [a b c e f g h i] $fields)
            }
        }
        #[automatically_derived]
        #[allow(unused_variables)]
        impl<$($g: $crate::Decode),*> $crate::Decode for $name<$($g),*> {
            fn decode(
                r: &mut $crate::__private::Reader<'_>,
            ) -> $crate::__private::Result<Self, $crate::__private::Malformed> {
                r.nested(|r| {
                    $crate::__value_fields!(take [r Self] [a b c e f g h i] $fields)
                })
            }
            fn shape(s: &mut $crate::__private::Shape) {
                s.within::<Self>(|s| {
                    $crate::__value_fields!(shape [s "struct"] [a b c e f g h i] $fields)
                });
            }
        }
        $crate::__value_impls! { reply $name [$($g)*] }
    };
    (enum $name:ident [$($g:ident)*] $($variant:ident [$($fields:tt)?])+) => {
        #[automatically_derived]
        impl<$($g: $crate::Decode),*> $crate::Encode for $name<$($g),*> {
            fn encode(&self, w: &mut $crate::__private::Writer<'_>) {
                enum __Tag { $($variant),+ }
                match self { $(
                    $crate::__value_fields!(
                        pattern [Self::$variant] [a b c e f g h i] $($fields)?
                    ) => {
                        w.put_varint(__Tag::$variant as u64);
                        $crate::__value_fields!(put [w] [a b c e f g h i] $($fields)?)
                    }
                )+ }
            }
        }
        #[automatically_derived]
        impl<$($g: $crate::Decode),*> $crate::Decode for $name<$($g),*> {
            fn decode(
                r: &mut $crate::__private::Reader<'_>,
            ) -> $crate::__private::Result<Self, $crate::__private::Malformed> {
                enum __Tag { $($variant),+ }
                let tag = r.take_varint()?;
                r.nested(|r| match tag {
                    $(tag if tag == __Tag::$variant as u64 => {
                        $crate::__value_fields!(
                            take [r Self::$variant] [a b c e f g h i] $($fields)?
                        )
                    })+
                    _ => $crate::__private::Result::Err($crate::__private::NO_VARIANT),
                })
            }
            fn shape(s: &mut $crate::__private::Shape) {
                s.within::<Self>(|s| {
                    s.word("enum {");
                    $(
                        $crate::__value_fields!(
                            shape [s ::core::stringify!($variant)] [a b c e f g h i] $($fields)?
                        );
                    )+
                    s.word("}");
                });
            }
        }
        $crate::__value_impls! { reply $name [$($g)*] }
    };
    (reply $name:ident [$($g:ident)*]) => {
        #[automatically_derived]
        impl<$($g: $crate::Decode),*> $crate::function::Reply for $name<$($g),*> {
            type Value = Self;
            fn into_reply(self) -> $crate::__private::Result<Self, $crate::__private::CallFailure> {
                $crate::__private::Result::Ok(self)
            }
        }
    };
}

/// One use of the fields of a struct or variant: `pattern`, `put`, `take` or `shape`. They are
/// brought to one form first: (member, variable, type).
#[doc(hidden)]
#[macro_export]
macro_rules! __value_fields {
    ($use:ident $with:tt $pool:tt) => {
        $crate::__value_fields!(@$use $with)
    };
    ($use:ident $with:tt $pool:tt { $($field:ident: $t:ty),* }) => {
        $crate::__value_fields!(@$use $with $(($field $field $t))*)
    };
    ($use:ident $with:tt [$a:ident $b:ident $c:ident $e:ident $f:ident $g:ident $h:ident $i:ident]
        ( $($t:ty),* )) => {
        $crate::__value_fields!(@zip $use $with
            [(0 $a) (1 $b) (2 $c) (3 $e) (4 $f) (5 $g) (6 $h) (7 $i)] [] $($t,)*)
    };
    (@zip $use:ident $with:tt $pool:tt [$($done:tt)*]) => {
        $crate::__value_fields!(@$use $with $($done)*)
    };
    (@zip $use:ident $with:tt [($member:tt $x:ident) $($pool:tt)*] [$($done:tt)*]
        $t:ty, $($rest:ty,)*) => {
        $crate::__value_fields!(@zip $use $with [$($pool)*] [$($done)* ($member $x $t)] $($rest,)*)
    };
    (@zip pattern $with:tt [] $done:tt $($rest:ty,)+) => { _ };
    (@zip put $with:tt [] $done:tt $($rest:ty,)+) => {
        ::core::compile_error!("a tuple in `mitogen::value!` has at most eight fields: name them")
    };
    (@zip $use:ident $with:tt [] $done:tt $($rest:ty,)+) => { ::core::unreachable!() };
    (@pattern [$($path:tt)*] $(($member:tt $x:ident $t:ty))*) => {
        $($path)* { $($member: $x),* }
    };
    (@put [$w:ident] $(($member:tt $x:ident $t:ty))*) => {
        { $(<$t as $crate::Decode>::__put($x, $w);)* }
    };
    (@take [$r:ident $($path:tt)*] $(($member:tt $x:ident $t:ty))*) => {
        $crate::__private::Result::Ok(
            $($path)* { $($member: <$t as $crate::Decode>::decode($r)?),* }
        )
    };
    (@shape [$s:ident $($head:tt)*]) => {
        $s.word(::core::concat!($($head)*, " { }"))
    };
    (@shape [$s:ident $($head:tt)*] $(($member:tt $x:ident $t:ty))*) => {
        {
            $s.word(::core::concat!($($head)*, " {"));
            $(
                $s.word(::core::stringify!($member));
                <$t as $crate::Decode>::shape($s);
            )*
            $s.word("}");
        }
    };
    (bounds) => {
        ::core::compile_error!(
            "a type parameter in `mitogen::value!` is a bare name: `Decode` is added, no other \
             bound is possible"
        );
    };
}

#[cfg(test)]
mod tests {
    use crate::wire::codec::{Decode, Malformed, Reader, Shape, Writer};

    mod sight {
        crate::value! {
            /// What was found.
            #[derive(Debug, Clone, PartialEq)]
            pub struct Usage { /** Below this. */ pub path: String, pub(super) bytes: u64 }
            #[derive(Debug, PartialEq)]
            pub struct Meters(pub u32, pub(crate) String,);
            #[derive(Debug, PartialEq, Default)]
            pub struct Marker;
            #[derive(Debug, PartialEq)]
            pub struct Empty {}
        }
    }
    use sight::{Empty, Marker, Meters, Usage};

    crate::value! {
        #[derive(Debug, PartialEq)]
        struct Page<T> { items: T, next: u64 }
        #[derive(Debug, PartialEq)]
        struct Both<T, U>(T, U);
        #[derive(Debug, PartialEq, Default)]
        enum Event<T> {
            #[default] Started,
            Line(String),
            Two(u32, T),
            Done { w: u32, r: T, s: u64 },
            Eight(u16, u32, u64, u16, u32, u64, String, T),
            Nothing {},
            Void(),
        }
        #[derive(Debug, PartialEq, Clone, Copy)]
        #[repr(u8)]
        enum Level { Low = 3, High = 7 }
        #[derive(Debug, PartialEq)]
        enum Tree { Leaf(u8), Node(Vec<Tree>) }
    }

    #[track_caller]
    fn travels<T: Decode + PartialEq + std::fmt::Debug>(value: T) -> Vec<u8> {
        let mut w = Writer::new(Vec::new(), None);
        value.encode(&mut w);
        let bytes = w.finish().unwrap();
        let mut r = Reader::new(&bytes, None);
        assert_eq!(T::decode(&mut r), Ok(value));
        assert_eq!(r.finish(), Ok(()));
        bytes
    }

    #[test]
    fn structs_travel() {
        travels(Usage { path: "/var".into(), bytes: 7 });
        travels(Meters(3, "m".into()));
        assert!(travels(Marker).is_empty());
        assert!(travels(Empty {}).is_empty());
        travels(Page { items: Both(1u32, Marker), next: 2 });
    }

    #[test]
    fn every_kind_of_variant_travels() {
        travels(Event::<u16>::default());
        travels(Event::<u16>::Line("x".into()));
        travels(Event::Two(1, 2u16));
        travels(Event::Done { w: 1, r: Usage { path: String::new(), bytes: 0 }, s: 3 });
        travels(Event::Eight(1, 2, 3, 4, 5, 6, "7".into(), 8u64));
        travels(Event::<u16>::Nothing {});
        travels(Event::<u16>::Void());
    }

    #[test]
    fn a_variant_is_sent_as_its_position() {
        assert_eq!(travels(Level::High), [1]);
        assert_eq!(Level::High as u8, 7);
    }

    #[test]
    fn an_unknown_variant_is_malformed() {
        let decoded = Level::decode(&mut Reader::new(&[2], None));
        assert_eq!(decoded, Err(Malformed("no such variant")));
    }

    #[test]
    fn shapes_have_the_names_of_fields_and_variants() {
        let shape = Shape::text(Usage::shape);
        assert_eq!(shape, "struct { path str bytes u64 }");
        assert_eq!(Shape::text(Meters::shape), "struct { 0 u32 1 str }");
        assert_eq!(Shape::text(Level::shape), "enum { Low { } High { } }");
    }

    #[test]
    fn a_type_inside_itself_of_other_parameters_is_spelled_out() {
        let shape = Shape::text(Page::<Page<u16>>::shape);
        assert_eq!(shape, "struct { items struct { items u16 next u64 } next u64 }");
    }

    #[test]
    fn a_type_inside_itself_travels() {
        travels(Tree::Node(vec![Tree::Leaf(1), Tree::Node(vec![])]));
        let shape = Shape::text(Tree::shape);
        assert_eq!(shape, "enum { Leaf { 0 u8 } Node { 0 vec ^ } }");
    }

    #[test]
    fn a_value_that_nests_too_deeply_is_malformed() {
        let bytes = [1; 1000];
        let decoded = Tree::decode(&mut Reader::new(&bytes, None));
        assert_eq!(decoded, Err(Malformed("nested too deeply")));
    }
}
