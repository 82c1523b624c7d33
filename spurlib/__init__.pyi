from . import (
    activations as activations,
)
from . import (
    book as book,
)
from . import (
    data as data,
)
from . import (
    experiments as experiments,
)
from . import (
    features as features,
)
from . import (
    hermite as hermite,
)
from . import (
    interpolation as interpolation,
)
from . import (
    kernels as kernels,
)
from . import (
    nesting as nesting,
)
from . import (
    networks as networks,
)
from . import (
    privacy as privacy,
)
from . import (
    theory as theory,
)
from .activations import Activation as Activation
from .activations import activation as activation
from .activations import activation_names as activation_names
from .book import (
    COLORS as COLORS,
)
from .book import (
    Claim as Claim,
)
from .book import (
    ClaimError as ClaimError,
)
from .book import (
    Explorer as Explorer,
)
from .book import (
    claim as claim,
)
from .book import (
    figure_style as figure_style,
)
from .book import (
    note as note,
)
from .book import (
    size_axis as size_axis,
)
from .data import (
    Concentration as Concentration,
)
from .data import (
    DataNotAvailableError as DataNotAvailableError,
)
from .data import (
    SpuriousData as SpuriousData,
)
from .data import (
    concentration as concentration,
)
from .data import (
    first_available as first_available,
)
from .data import (
    framed_images as framed_images,
)
from .data import (
    image_counts as image_counts,
)
from .data import (
    marked_images as marked_images,
)
from .data import (
    synthetic as synthetic,
)
from .experiments.pages import recorded as recorded
from .features import (
    EmpiricalTangent as EmpiricalTangent,
)
from .features import (
    RandomFeatures as RandomFeatures,
)
from .features import (
    TangentFeatures as TangentFeatures,
)
from .hermite import (
    dual_kernel as dual_kernel,
)
from .hermite import (
    gaussian_expectation as gaussian_expectation,
)
from .hermite import (
    hermite_basis as hermite_basis,
)
from .hermite import (
    hermite_coefficients as hermite_coefficients,
)
from .hermite import (
    hermite_series as hermite_series,
)
from .interpolation import (
    Evaluation as Evaluation,
)
from .interpolation import (
    Interpolator as Interpolator,
)
from .interpolation import (
    SingularKernelError as SingularKernelError,
)
from .interpolation import (
    Solve as Solve,
)
from .kernels import InfiniteWidth as InfiniteWidth
from .nesting import Nested as Nested
from .nesting import nested as nested
from .networks import (
    DivergedError as DivergedError,
)
from .networks import (
    fully_connected as fully_connected,
)
from .networks import (
    leave_one_out as leave_one_out,
)
from .networks import (
    predict as predict,
)
from .networks import (
    resnet18 as resnet18,
)
from .networks import (
    small_cnn as small_cnn,
)
from .networks import (
    train as train,
)
from .networks import (
    train_many as train_many,
)
from .networks import (
    vision_transformer as vision_transformer,
)
from .theory import (
    Prediction as Prediction,
)
from .theory import (
    Regime as Regime,
)
from .theory import (
    gamma_ntk as gamma_ntk,
)
from .theory import (
    gamma_rf as gamma_rf,
)
from .theory import (
    gamma_rf_bound as gamma_rf_bound,
)
from .theory import (
    predict_accuracy as predict_accuracy,
)
from .theory import (
    regime as regime,
)
