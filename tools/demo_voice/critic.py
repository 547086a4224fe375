"""A critic of sound: convolutions over complex spectra of three window lengths, after EnCodec's discriminator."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

N_FILTERS = 8
WINDOWS = (512, 1024, 2048)


class SpectrumCritic(nn.Module):
    """One window length: a spectrum as a picture of two channels, judged place by place."""

    def __init__(self, n_fft: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        widths = (2, N_FILTERS, N_FILTERS, 2 * N_FILTERS, 2 * N_FILTERS)
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.weight_norm(
                nn.Conv2d(n_in, n_out, (3, 9), stride=(1, 1 if i == 0 else 2), padding=(1, 4))
            )
            for i, (n_in, n_out) in enumerate(zip(widths, widths[1:], strict=False))
        )
        self.judge = nn.utils.parametrizations.weight_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, samples: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(batch, samples) -> a map of judgements, higher is truer, and the layers' features."""
        spectrum = torch.stft(samples, self.n_fft, self.n_fft // 4, window=self.window, return_complex=True)
        # Loud and soft places should both be seen: magnitudes are compressed, phases kept.
        size = spectrum.abs().clamp(min=1e-4)
        spectrum = spectrum / size * size.sqrt()
        x = torch.stack([spectrum.real, spectrum.imag], 1).transpose(2, 3)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.judge(x).float(), features


class Critic(nn.Module):
    """The judgements of all window lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.critics = nn.ModuleList(SpectrumCritic(n) for n in WINDOWS)

    def forward(self, samples: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
        return [critic(samples) for critic in self.critics]


def critic_loss(true: list, made: list) -> Tensor:
    """Hinge: judgements of true sound above 1, of made sound below -1."""
    losses = [F.relu(1 - t).mean() + F.relu(1 + m).mean() for (t, _), (m, _) in zip(true, made, strict=True)]
    return torch.stack(losses).mean()


def maker_losses(true: list, made: list) -> tuple[Tensor, Tensor]:
    """How far made sound is from being judged true, and how far its features are from those of the true sound."""
    judged = torch.stack([F.relu(1 - m).mean() for m, _ in made]).mean()
    distances = [
        (a - b.detach()).abs().mean() / b.detach().abs().mean()
        for (_, ours), (_, theirs) in zip(made, true, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    ]
    return judged, torch.stack(distances).mean()
