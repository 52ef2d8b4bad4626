//! Keys of CURVE, by libzmq.

use std::ffi::{CStr, CString, c_char, c_int};

/// Bytes of a key in Z85, with the NUL at its end.
const SIZE: usize = 41;

// libzmq is linked by the package zmq, which does not hand this one on.
unsafe extern "C" {
    /// zmq_curve_public(3)
    fn zmq_curve_public(z85_public_key: *mut c_char, z85_secret_key: *const c_char) -> c_int;
}

/// The public key that belongs to a secret one, both in Z85 (zmq_curve_public(3), libzmq 4.2); `None` where it is no key, or libzmq has no CURVE.
pub fn public_of(secret: &str) -> Option<String> {
    let secret = CString::new(secret).ok().filter(|secret| secret.as_bytes().len() == SIZE - 1)?;
    let mut public = [0u8; SIZE];
    // SAFETY: the secret is a string of 40 bytes with a NUL behind it, and `public` has the 41 bytes that are written.
    let done = unsafe { zmq_curve_public(public.as_mut_ptr().cast::<c_char>(), secret.as_ptr()) };
    (done == 0).then(|| CStr::from_bytes_until_nul(&public).ok()?.to_str().ok().map(str::to_owned)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_key_is_the_one_of_the_pair() {
        let pair = zmq::CurveKeyPair::new().unwrap();
        let z85 = |key: &[u8]| zmq::z85_encode(key).unwrap();
        assert_eq!(public_of(&z85(&pair.secret_key)), Some(z85(&pair.public_key)));
        assert_eq!((public_of(""), public_of("\0"), public_of(&"\"".repeat(40))), (None, None, None));
    }
}
