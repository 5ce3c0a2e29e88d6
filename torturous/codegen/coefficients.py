"""Numbers that the vector mathematics is made of.

The polynomials are minimax approximations, found for this project by Remez' exchange algorithm in 45-digit
arithmetic and then rounded to the dtype; each entry names the function, the interval and the largest error
that the rounded coefficients leave. Coefficients are in ascending powers of the variable named.
"""

from __future__ import annotations

from typing import NamedTuple

from torturous.codegen.emitter import Emitter
from torturous.core import dtypes
from torturous.core.dtypes import DType

Polynomial = tuple[float, ...]


class Numbers(NamedTuple):
    """What the functions need in one dtype."""

    exponential: Polynomial
    """(eʳ − 1 − r)/r² in r for |r| ≤ ln(2)/2; in expm1 the relative error is 2^-26 or 2^-59."""
    logarithm: Polynomial
    """(ln(1 + f) − f)/f² in f for −1/4 ≤ f ≤ 1/2; relative error of the logarithm 2^-26.7 or 2^-54.6."""
    sine: Polynomial
    """(sin r − r)/r³ in r² for |r| ≤ 0.7875; relative error 2^-27.9 or 2^-57.3."""
    cosine: Polynomial
    """(cos r − 1 + r²/2)/r⁴ in r² for |r| ≤ 0.7875; error 2^-32.6 or 2^-61."""
    error_function: Polynomial
    """erf(x)/x − 1 in x² for |x| ≤ 1; error 2^-29.6 or 2^-55.9."""
    log_2: tuple[float, float]
    """ln 2 as a number rounded down and the rest: both are positive, so that infinity times them adds up."""
    log10_2: tuple[float, float]
    """lg 2, likewise."""
    log2_e: tuple[float, float]
    """1/ln 2 as the nearest number and the nearest to the rest."""
    log10_e: tuple[float, float]
    half_pi: tuple[float, float, float]
    two_over_pi: float
    overflow: float
    """eˣ is infinite for x from here on."""
    underflow: float
    """eˣ is zero for x up to here."""
    reducible: float
    """Up to here the parts of π/2 are enough to reduce an angle: x times the second stays well below 2^-6."""


_NUMBERS: dict[DType, Numbers] = {
    dtypes.float32: Numbers(
        exponential=(0.5, 0.1666654, 0.041666616, 0.008366965, 0.0013916706),
        logarithm=(
            -0.5, 0.33333445, -0.25000244, 0.199913, -0.16642807, 0.1446339, -0.13190044, 0.106115006,
            -0.046452597,
        ),
        sine=(-0.16666655, 0.008332186, -0.00019517579),
        cosine=(0.041666653, -0.0013887618, 2.44631e-05),
        error_function=(
            0.12837917, -0.3761263, 0.11283618, -0.026855126, 0.0051907334, -0.00080307503, 7.920303e-05,
        ),
        log_2=(0.6931471228599548, 5.769998878690785e-08),
        log10_2=(0.3010299801826477, 1.5481333548450493e-08),
        log2_e=(1.4426950216293335, 1.925963033500011e-08),
        log10_e=(0.4342944920063019, -1.0103049952192578e-08),
        half_pi=(1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15),
        two_over_pi=0.6366197466850281,
        overflow=89.0,
        underflow=-104.0,
        reducible=2.0**17,
    ),
    dtypes.float64: Numbers(
        exponential=(
            0.5, 0.16666666666666677, 0.0416666666666667, 0.00833333333332188, 0.0013888888888867307,
            0.00019841269885575598, 2.48015873598419e-05, 2.7557244701741133e-06, 2.755724325064967e-07,
            2.5108882587170904e-08, 2.0924317960630535e-09,
        ),
        logarithm=(
            -0.5, 0.33333333333336485, -0.2500000000000312, 0.19999999998946036, -0.16666666664481836,
            0.14285714402531374, -0.1250000037028478, 0.11111105250293654, -0.09999973997692663,
            0.09091045919540056, -0.08334227938054786, 0.07691402215624529, -0.07127566100096482,
            0.06647228372198839, -0.06355220540622619, 0.06241634639362707, -0.05699673051256675,
            0.03984562664411495, -0.016881881928601523, 0.002948004198591513,
        ),
        sine=(
            -0.16666666666666638, 0.008333333333323518, -0.00019841269830480856, 2.7557313876181513e-06,
            -2.505078135456042e-08, 1.5897892410243309e-10,
        ),
        cosine=(
            0.04166666666666666, -0.00138888888888832, 2.480158729471408e-05, -2.755731575480394e-07,
            2.087590106112472e-09, -1.1368271903224782e-11,
        ),
        error_function=(
            0.1283791670955126, -0.3761263890318375, 0.11283791670954885, -0.026866170645077875,
            0.005223977624828446, -0.0008548326981426723, 0.00012055331133006521, -1.4925595773543513e-05,
            1.6461008501459162e-06, -1.635039648823639e-07, 1.4660330581227185e-08, -1.137496312768372e-09,
            5.960698090143941e-11,
        ),
        log_2=(0.6931471805599453, 2.3190468138462996e-17),
        log10_2=(0.30102999566398114, 5.270742310347266e-17),
        log2_e=(1.4426950408889634, 2.0355273740931033e-17),
        log10_e=(0.4342944819032518, 1.098319650216765e-17),
        half_pi=(1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33),
        two_over_pi=0.6366197723675814,
        overflow=710.0,
        underflow=-746.0,
        reducible=2.0**47,
    ),
}

# (tanh x − x)/x³ in x² for |x| ≤ 0.8; relative error 2^-28. Of float32 only.
TANH: Polynomial = (-0.33333308, 0.13332416, -0.053865172, 0.0213409, -0.007461192, 0.0016111956)

# What erf is beyond 1, for each dtype.
# √erfc(a) in a − 3/2 for 1 ≤ a ≤ 4; the error in erf is 2^-26.2. Of float32. Found by Lawson's iteration, with the
# errors of erf as what is made even.
COMPLEMENT_ROOT: Polynomial = (
    0.18410558, -0.3229945, 0.2011597, -0.023919243, -0.03070529, 0.012648429, 0.0015305034, -0.0020498985,
    0.00038011346, 2.8706492e-05, -1.1310278e-05,
)
# erfc(a)·exp(a²) in a − 2 for 1 ≤ a ≤ 6; the error in erf is 2^-58. Of float64.
SCALED_COMPLEMENT: Polynomial = (
    0.25539567631050564, -0.10679646185348926, 0.04180275260354416, -0.015460637764267648,
    0.005440738537083464, -0.0018316642764799936, 0.0005924699982248143, -0.00018477836107589547,
    5.5728305005095676e-05, -1.6293741350948977e-05, 4.628196902584531e-06,
    -1.2794791214436487e-06, 3.4482365695575695e-07, -9.078603111333013e-08,
    2.3373615988554217e-08, -5.848380365201187e-09, 1.4237300331764874e-09,
    -3.5545909147513767e-10, 9.314720717752416e-11, -2.1331682824481274e-11, 3.189499175801238e-12,
    -2.1411440442088733e-13,
)

# For powers of float32, which are computed in float64.
# log₂(1 + f)/f in f for −1/4 ≤ f ≤ 1/2; relative error 2^-43.
LOG2: Polynomial = (
    1.4426950408889248, -0.7213475204403924, 0.48089834700058, -0.360673761663216, 0.288539003725449,
    -0.2404490232742013, 0.20609933925659982, -0.18034363857169983, 0.16030968082895203,
    -0.14413010061429185, 0.13072059338912767, -0.12122734316083275, 0.11712931233425336,
    -0.10785612704065678, 0.0733182962829263, -0.02435936034463986,
)
# 2ʳ in r for |r| ≤ 1/2; relative error 2^-34.5.
EXP2: Polynomial = (
    0.9999999999595348, 0.6931471805350286, 0.24022651213692373, 0.05550410976105039, 0.00961802559259364,
    0.0013333422647083518, 0.000154697347408328, 1.5316461574910607e-05,
)

# For powers of float64.
# (artanh(s)/s − 1 − s²/3)/s⁴ in s² for s² ≤ 0.0401; relative error 2^-56.
ARTANH: Polynomial = (
    0.2, 0.14285714285714243, 0.11111111111139683, 0.09090909083628601, 0.07692308620705682,
    0.06666600276814724, 0.058851330760458266, 0.05195736484295604, 0.05629484467564955,
)
ONE_THIRD = (0.3333333333333333, 1.850371707708594e-17)

# (arctan w − w)/w³ in w² for |w| ≤ tan(π/8); relative error of the arctangent 2^-28.2 or 2^-58.2.
ARCTANGENT: dict[DType, Polynomial] = {
    dtypes.float32: (-0.33333316, 0.19998467, -0.1424345, 0.105931595, -0.06076489),
    dtypes.float64: (
        -0.33333333333333326, 0.19999999999997634, -0.1428571428538377, 0.11111111087932671, -0.09090908136296848,
        0.0769228258486829, -0.066662243540056, 0.058769996981903536, -0.05218270459287095, 0.04503035517128047,
        -0.03346314168193376, 0.01518426269552691,
    ),
}
# (arcsin s − s)/s³ in s² for |s| ≤ 1/2; relative error of the arcsine 2^-30.1 or 2^-58.2.
ARCSINE: dict[DType, Polynomial] = {
    dtypes.float32: (0.1666666, 0.075005054, 0.044516712, 0.03180989, 0.014429899, 0.037529323),
    dtypes.float64: (
        0.1666666666666676, 0.07499999999970637, 0.0446428571747761, 0.030381942699509938, 0.022372215231198925,
        0.017351607461827588, 0.013980877127428657, 0.011398433515632083, 0.010783021161230246, 0.003695639845824235,
        0.021734387581636552, -0.0210382078645525, 0.03265372843599076,
    ),
}


def numbers(e: Emitter) -> Numbers:
    return _NUMBERS[e.dtype]
