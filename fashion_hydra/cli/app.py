"""`fashion-hydra app [MODEL]`: try a model on photos in the browser."""

import argparse
import socket
from typing import TYPE_CHECKING

from fashion_hydra.cli._data_arguments import add_layout_arguments, reader_of
from fashion_hydra.cli._model_arguments import add_model_arguments
from fashion_hydra.utils.errors import UserError

if TYPE_CHECKING:
    from fashion_hydra.data.annotations import Annotations


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_model_arguments(parser)
    parser.add_argument("--data", metavar="DIR", help="data set whose photos are offered with their ground truth")
    add_layout_arguments(parser)
    parser.add_argument("--device", help="PyTorch device, such as cuda:1 (default: a GPU if available)")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 admits other computers (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="0 takes a free port (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    try:
        import uvicorn

        from fashion_hydra.app.server import make_app
    except ImportError as error:
        raise UserError(f'the app needs two more packages: pip install "fashion-hydra[app]" ({error})') from error
    from fashion_hydra.api.load import load
    from fashion_hydra.api.predictor import predict_options
    from fashion_hydra.app.photos import Session
    from fashion_hydra.training.console import silence_library_noise

    silence_library_noise()
    listening = _listen(args.host, args.port)
    model = load(*args.models, device=args.device)
    predict_options(args.tta)
    session = Session(model, _annotations(args), args.tta)
    host, port = listening.getsockname()[:2]
    print(f"model        {model}")
    if session.annotations is not None:
        print(f"data         {args.data}: {len(session.annotations)} photos")
    print(f"open         http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}", flush=True)
    print("stop         Ctrl-C", flush=True)
    app = make_app(session) if args.host in ("127.0.0.1", "localhost", "::1") else make_app(session, ["*"])
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    server.run(sockets=[listening])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before the model is loaded; raise UserError if it is not available."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()
    except (OSError, OverflowError) as error:
        listening.close()
        raise UserError(f"--host {host} --port {port}: {error}. --port 0 takes a free one") from error
    return listening


def _annotations(args: argparse.Namespace) -> "Annotations | None":
    from fashion_hydra.data.annotation_cache import load_annotations

    if args.data is None:
        if args.coco or args.csv or args.yolo:
            raise UserError("--coco, --csv and --yolo describe the layout of --data DIR. Give --data too")
        return None
    args.folder = args.data
    return load_annotations(reader_of(args))[0]
