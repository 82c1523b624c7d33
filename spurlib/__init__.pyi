from .hermite import (
    dual_kernel as dual_kernel,
    gaussian_expectation as gaussian_expectation,
    hermite_basis as hermite_basis,
    hermite_coefficients as hermite_coefficients,
    hermite_series as hermite_series,
)
from .activations import Activation as Activation, activation as activation, activation_names as activation_names
from .features import (
    EmpiricalTangent as EmpiricalTangent,
    RandomFeatures as RandomFeatures,
    TangentFeatures as TangentFeatures,
)
from .kernels import InfiniteWidth as InfiniteWidth
from .interpolation import (
    Evaluation as Evaluation,
    Interpolator as Interpolator,
    SingularKernelError as SingularKernelError,
    Solve as Solve,
)
from .nesting import Nested as Nested, nested as nested
from .theory import (
    Prediction as Prediction,
    Regime as Regime,
    gamma_ntk as gamma_ntk,
    gamma_rf as gamma_rf,
    gamma_rf_bound as gamma_rf_bound,
    predict_accuracy as predict_accuracy,
    regime as regime,
)
from .data import (
    Concentration as Concentration,
    DataNotAvailableError as DataNotAvailableError,
    SpuriousData as SpuriousData,
    concentration as concentration,
    first_available as first_available,
    framed_images as framed_images,
    image_counts as image_counts,
    marked_images as marked_images,
    synthetic as synthetic,
)
from .networks import (
    DivergedError as DivergedError,
    fully_connected as fully_connected,
    leave_one_out as leave_one_out,
    predict as predict,
    resnet18 as resnet18,
    small_cnn as small_cnn,
    train as train,
    train_many as train_many,
    vision_transformer as vision_transformer,
)
from .experiments.pages import recorded as recorded
from .book import (
    COLORS as COLORS,
    Claim as Claim,
    ClaimError as ClaimError,
    Explorer as Explorer,
    claim as claim,
    figure_style as figure_style,
    note as note,
    size_axis as size_axis,
)
from . import (
    activations as activations,
    book as book,
    data as data,
    experiments as experiments,
    features as features,
    hermite as hermite,
    interpolation as interpolation,
    kernels as kernels,
    nesting as nesting,
    networks as networks,
    privacy as privacy,
    theory as theory,
)
