//! What a decoder of the Llama family is made of, parsed and bounded.
//!
//! Invariants: a [`Hyperparameters`] value has passed [`Hyperparameters::check`]: all sizes are
//! non-zero, bounded, and fit each other.

/// Positions the engine serves at most, whatever a file claims.
pub const CONTEXT_MAX: usize = 1 << 20;
const LAYERS_MAX: usize = 512;
const HEADS_MAX: usize = 1_024;
const WIDTH_MAX: usize = 1 << 17;
const VOCABULARY_MAX: usize = 1 << 22;

/// The sizes and constants of one model.
#[derive(Clone, PartialEq, Debug)]
pub struct Hyperparameters {
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_width: usize,
    pub intermediate: usize,
    pub vocabulary: usize,
    /// Positions, prompt and output together.
    pub context: usize,
    pub norm_epsilon: f32,
    pub rope: Rope,
}

/// Rotary position embedding.
#[derive(Clone, PartialEq, Debug)]
pub struct Rope {
    pub layout: RopeLayout,
    /// Radians per position for each pair, `head_width / 2` of them.
    pub frequencies: Vec<f64>,
}

/// Which two values of a head rotate together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RopeLayout {
    /// `i` with `i + head_width / 2`, as Hugging Face stores weights.
    Halves,
    /// `2 i` with `2 i + 1`, as GGUF files of the llama architecture store weights.
    Pairs,
}

/// How frequencies are stretched for long contexts.
#[derive(Clone, PartialEq, Debug)]
pub enum RopeScaling {
    None,
    Linear {
        factor: f64,
    },
    /// Source: the published Llama 3.1 configuration (`rope_type: llama3`).
    Llama3 {
        factor: f64,
        low_frequency_factor: f64,
        high_frequency_factor: f64,
        original_context: f64,
    },
    /// One divisor per pair, as GGUF's `rope_freqs.weight` gives them.
    Divisors(Vec<f32>),
}

impl Rope {
    pub fn new(layout: RopeLayout, head_width: usize, theta: f64, scaling: &RopeScaling) -> Self {
        let frequencies = (0..head_width / 2)
            .map(|pair| {
                let plain = theta.powf(-2.0 * pair as f64 / head_width as f64);
                match scaling {
                    RopeScaling::None => plain,
                    RopeScaling::Linear { factor } => plain / factor,
                    RopeScaling::Llama3 { .. } => scaling.stretch(plain),
                    RopeScaling::Divisors(divisors) => plain / f64::from(divisors.get(pair).copied().unwrap_or(1.0)),
                }
            })
            .collect();
        Self { layout, frequencies }
    }
}

impl RopeScaling {
    /// Low frequencies are divided, high ones kept, those between blended by wavelength.
    fn stretch(&self, plain: f64) -> f64 {
        let Self::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_context } = self else {
            return plain;
        };
        let wavelength = 2.0 * std::f64::consts::PI / plain;
        if wavelength < original_context / high_frequency_factor {
            return plain;
        }
        if wavelength > original_context / low_frequency_factor {
            return plain / factor;
        }
        let blend = (original_context / wavelength - low_frequency_factor) / (high_frequency_factor - low_frequency_factor);
        (1.0 - blend) * plain / factor + blend * plain
    }
}

impl Hyperparameters {
    /// Says which size is impossible.
    pub fn check(&self) -> Result<(), String> {
        for (name, value, most) in [
            ("the hidden size", self.hidden, WIDTH_MAX),
            ("the number of layers", self.layers, LAYERS_MAX),
            ("the number of attention heads", self.heads, HEADS_MAX),
            ("the number of key-value heads", self.kv_heads, HEADS_MAX),
            ("the head width", self.head_width, WIDTH_MAX),
            ("the intermediate size", self.intermediate, WIDTH_MAX * 4),
            ("the vocabulary size", self.vocabulary, VOCABULARY_MAX),
            ("the context length", self.context, CONTEXT_MAX),
        ] {
            if value == 0 || value > most {
                return Err(format!("{name} is {value}; 1 to {most} works"));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(format!("{} attention heads cannot share {} key-value heads", self.heads, self.kv_heads));
        }
        if !self.head_width.is_multiple_of(2) {
            return Err(format!("the head width {} is odd", self.head_width));
        }
        if !(self.norm_epsilon.is_finite() && self.norm_epsilon > 0.0) {
            return Err("the norm's epsilon is not a positive number".to_owned());
        }
        if !self.rope.frequencies.iter().all(|frequency| frequency.is_finite()) {
            return Err("the rotary frequencies are not finite".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_scaling_keeps_high_frequencies_and_divides_low_ones() {
        let scaling =
            RopeScaling::Llama3 { factor: 32.0, low_frequency_factor: 1.0, high_frequency_factor: 4.0, original_context: 8192.0 };
        let plain = Rope::new(RopeLayout::Halves, 64, 500_000.0, &RopeScaling::None).frequencies;
        let scaled = Rope::new(RopeLayout::Halves, 64, 500_000.0, &scaling).frequencies;
        assert_eq!(plain[0], scaled[0]);
        assert!((plain[31] / scaled[31] - 32.0).abs() < 1e-9);
        assert!(scaled.windows(2).all(|pair| pair[0] > pair[1]), "frequencies fall");
    }
}
