"""A camera by rtsps://: GStreamer's RTSP server, which plays an MP4's H.264 track within TLS.

usage: tls_camera.py CLIP.mp4 CERTIFICATE.pem KEY.pem [USER PASSWORD]

Says its port once it listens. Digest authentication where a user is given.
needs: apt-get install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good gstreamer1.0-plugins-bad glib-networking
"""
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

clip, certificate, key, *user = sys.argv[1:]
Gst.init(None)
role = "viewer"

token = GstRtspServer.RTSPToken()
token.set_string("media.factory.role", role)
auth = GstRtspServer.RTSPAuth()
auth.set_tls_certificate(Gio.TlsCertificate.new_from_files(certificate, key))
if user:
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    auth.add_digest(*user, token)
else:
    auth.set_default_token(token)

access = Gst.Structure.new_empty(role)
access.set_value("media.factory.access", True)
access.set_value("media.factory.construct", True)
permissions = GstRtspServer.RTSPPermissions()
permissions.add_role_from_structure(access)

factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    f'( filesrc location="{clip}" ! qtdemux ! h264parse config-interval=-1 '
    "! rtph264pay name=pay0 pt=96 config-interval=-1 )"
)
factory.set_shared(True)
factory.set_permissions(permissions)

server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service("0")
server.set_auth(auth)
server.get_mount_points().add_factory("/cam", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
