"""What runs beside Ray: in the driver process and in the processes of a cluster. Only these modules import it."""
