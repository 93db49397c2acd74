//! Sixteen f32 numbers, and what the kernels do with them.

/// Sixteen f32 numbers.
///
/// # Safety
/// Every function: the CPU has what the vectors are made of; pointers are to sixteen numbers, at any alignment that
/// their type allows.
pub(in crate::fast) trait Vector: Copy {
    unsafe fn all(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    /// self · factor + summand
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self;
    /// summand - self · factor
    unsafe fn mul_sub_from(self, factor: Self, summand: Self) -> Self;
    /// Whether any of them is larger than `value`; what is not a number is not.
    unsafe fn any_above(self, value: f32) -> bool;
    /// t / (1 + 2^t), to the last bit or two. With t = -x·log2 e this is -x·sigmoid(x)·log2 e: SiLU but for a factor,
    /// which costs nothing where it meets another one.
    unsafe fn swish(self) -> Self;
    /// The same, to about three decimals: enough for what is stored in a byte or a bf16.
    unsafe fn swish_roughly(self) -> Self;
}

/// 2^f for f from 0 to 1, the highest power first; off by 8e-8 at most, and no polynomial of this degree is less (Lawson's
/// algorithm, relative errors).
pub(super) const EXP2: [f32; 6] =
    [1.877_576_7e-3, 8.989_34e-3, 5.582_631_8e-2, 0.240_153_62, 0.693_153_1, 0.999_999_94];

/// The same; off by 1.1e-4 at most.
pub(super) const EXP2_ROUGHLY: [f32; 4] = [0.079_019_9, 0.224_126_4, 0.696_643_9, 0.999_9];

/// Beyond this 2^t is taken as if t was this: it makes no difference to t / (1 + 2^t), and stays finite.
pub(super) const FAR: f32 = 126.0;

/// How SiLU's argument is scaled on its way into [`Vector::swish`], and its result on its way out.
pub(in crate::fast) const SWISH_IN: f32 = -std::f32::consts::LOG2_E;
pub(in crate::fast) const SWISH_OUT: f32 = -std::f32::consts::LN_2;
